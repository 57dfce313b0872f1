//! Tables in Markdown that are written and read again: a row per subject, a column per kernel.

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// What stands above the names of rows; the table is found by it.
    pub(crate) corner: String,
    pub(crate) columns: Vec<String>,
    /// Names, and a cell for each column; an empty one says that nothing is known.
    pub(crate) rows: Vec<(String, Vec<String>)>,
}

/// Cells of one column, with the names of their rows.
pub(crate) type Column = Vec<(String, String)>;

impl Table {
    /// An empty one.
    pub(crate) fn new(corner: &str) -> Self {
        Self { corner: corner.to_owned(), ..Self::default() }
    }

    /// The table of a text that has this corner; an empty one if there is none.
    pub(crate) fn read(text: &str, corner: &str) -> Self {
        let mut lines = text.lines().map(cells).skip_while(|cells| cells.first() != Some(&corner));
        let columns = lines.next().unwrap_or_default().into_iter().skip(1).map(str::to_owned).collect();
        let rows = lines.skip(1).take_while(|cells| !cells.is_empty());
        let row = |cells: Vec<&str>| {
            let mut cells = cells.into_iter().map(str::to_owned);
            (cells.next().unwrap_or_default(), cells.collect())
        };
        Self { corner: corner.to_owned(), columns, rows: rows.map(row).collect() }
    }

    /// One column, without what is not known; `None` if there is none of that name.
    pub(crate) fn column(&self, name: &str) -> Option<Column> {
        let at = self.columns.iter().position(|column| column == name)?;
        let cell = |(row, cells): &(String, Vec<String>)| {
            let cell = cells.get(at).filter(|cell| !cell.is_empty())?;
            Some((row.clone(), cell.clone()))
        };
        Some(self.rows.iter().filter_map(cell).collect())
    }

    /// The same with these columns instead of those of their names, columns in the order of `names`. Rows are in
    /// the order of the new columns; those that nobody knows of any more are gone.
    pub(crate) fn with(&self, names: &[&str], new: &[(&str, Column)]) -> Self {
        let column = |name: &str| match new.iter().find(|(column, _)| *column == name) {
            Some((_, column)) => Some(column.clone()),
            None => self.column(name),
        };
        let columns: Vec<(&str, Column)> =
            names.iter().filter_map(|name| Some((*name, column(name)?))).collect();
        let mut rows: Vec<&String> = Vec::new();
        let by_new = new.iter().chain(&columns).flat_map(|(_, column)| column).map(|(row, _)| row);
        by_new.for_each(|row| {
            if !rows.contains(&row) {
                rows.push(row);
            }
        });
        let cell = |column: &Column, row: &String| {
            column.iter().find(|(name, _)| name == row).map(|(_, cell)| cell.clone()).unwrap_or_default()
        };
        let cells = |row: &String| columns.iter().map(|(_, column)| cell(column, row)).collect();
        Self {
            corner: self.corner.clone(),
            columns: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: rows.into_iter().map(|row| (row.clone(), cells(row))).collect(),
        }
    }

    /// As Markdown.
    pub(crate) fn render(&self) -> String {
        let cell = |cell: &String| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") };
        let line = |first: &str, cells: &[String]| {
            format!("| {first} |{}\n", cells.iter().map(cell).collect::<String>())
        };
        let rule = format!("|---|{}\n", "---|".repeat(self.columns.len()));
        let rows = self.rows.iter().map(|(row, cells)| line(row, cells)).collect::<String>();
        format!("{}{rule}{rows}", line(&self.corner, &self.columns))
    }
}

/// The cells of a line; none if it is no line of a table.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map(|inner| inner.split('|').map(str::trim).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n\n| what | x |\n|---|---|\n| other | 1 |\n\n| program | old | new |\n\
        |---|---|---|\n| a | 1 | 2 |\n| b | | 3 |\n\nMore | text.\n";

    fn column(cells: &[(&str, &str)]) -> Column {
        cells.iter().map(|(row, cell)| ((*row).to_owned(), (*cell).to_owned())).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let table = Table::read(TEXT, "program");
        assert_eq!(table.columns, ["old", "new"]);
        assert_eq!(table.column("old"), Some(column(&[("a", "1")])));
        assert_eq!(table.column("new"), Some(column(&[("a", "2"), ("b", "3")])));
        assert_eq!(table.column("none"), None);
        assert!(TEXT.contains(&table.render()), "{}", table.render());
        assert_eq!(Table::read(TEXT, "nothing"), Table::new("nothing"));
    }

    #[test]
    fn a_new_column_takes_the_place_of_the_old() {
        let table = Table::read(TEXT, "program");
        let table = table.with(&["old", "new"], &[("new", column(&[("c", "4"), ("b", "5")]))]);
        assert_eq!(
            table.render(),
            "| program | old | new |\n|---|---|---|\n| c | | 4 |\n| b | | 5 |\n| a | 1 | |\n"
        );
        let table = table.with(&["old", "new"], &[("old", column(&[("c", "6")]))]);
        assert_eq!(table.render(), "| program | old | new |\n|---|---|---|\n| c | 6 | 4 |\n| b | | 5 |\n");
    }
}
