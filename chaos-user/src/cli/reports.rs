//! In which shapes a report is written, and where to: the options of every verb that has one.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::Args;

use super::run;
use crate::{
    judge::JudgeInput,
    report::{Report, html, json, junit, markdown},
};

/// Options that say so.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Write the report as JSON; to standard output, instead of the text, if no file is named
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<Place>,
    /// Write it as JUnit XML, for continuous integration; `-` is standard output, as in all of these
    #[arg(long, value_name = "FILE")]
    junit: Option<Place>,
    /// Write it as Markdown, for a comment on a pull request
    #[arg(long, value_name = "FILE")]
    markdown: Option<Place>,
    /// Write it as a page with figures
    #[arg(long, value_name = "FILE")]
    html: Option<Place>,
    /// In JUnit, make an error of what is not decided, instead of skipping it
    #[arg(long, requires = "junit")]
    strict: bool,
}

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Stdout,
    File(PathBuf),
}

impl From<OsString> for Place {
    fn from(path: OsString) -> Self {
        if path == "-" { Self::Stdout } else { Self::File(path.into()) }
    }
}

impl Place {
    /// What would keep the report from being written is better known before the experiment than after.
    fn check(&self) -> anyhow::Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let is_there = folder.is_none_or(|folder| folder.is_dir());
        ensure!(is_there, "{}: there is no such folder", path.display());
        ensure!(!path.is_dir(), "{} is a folder; name a file", path.display());
        Ok(())
    }

    fn write(&self, report: &str) -> anyhow::Result<()> {
        match self {
            Self::File(path) => fs::write(path, report).with_context(|| path.display().to_string()),
            // Nobody reading it any more is no reason to fail, as with all that is printed.
            Self::Stdout => match io::stdout().write_all(report.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(()),
            },
        }
    }
}

impl ReportArgs {
    /// Refuses what could not be done once there is a report.
    pub fn check(&self) -> anyhow::Result<()> {
        let places = || [&self.json, &self.junit, &self.markdown, &self.html].into_iter().flatten();
        let to_stdout = places().filter(|place| **place == Place::Stdout).count();
        ensure!(
            to_stdout <= 1,
            "only one of --json, --junit, --markdown and --html can go to standard output; name files for the others"
        );
        places().try_for_each(Place::check)
    }

    /// Writes the report in each of the shapes, and as text unless another one goes to standard output. One that cannot be
    /// written does not keep the others from it.
    pub fn write(&self, report: &Report, input: &JudgeInput) -> anyhow::Result<()> {
        let shapes: [(&Option<Place>, Render); 4] = [
            (&self.json, &|| Ok(json::render(report)?)),
            (&self.junit, &|| Ok(junit::render(report, self.strict)?)),
            (&self.markdown, &|| Ok(markdown::render(report))),
            (&self.html, &|| Ok(html::render(report, input))),
        ];
        let asked = shapes.iter().filter_map(|(place, render)| Some((place.as_ref()?, render)));
        if asked.clone().all(|(place, _)| *place != Place::Stdout) {
            run::print(report);
        }
        let written: Vec<_> = asked.map(|(place, render)| place.write(&render()?)).collect();
        written.into_iter().collect()
    }
}

/// A report in one shape.
type Render<'a> = &'a dyn Fn() -> anyhow::Result<String>;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::report::examples::{self, Example};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reports: ReportArgs,
    }

    fn parse(line: &str) -> anyhow::Result<ReportArgs> {
        let args = Line::try_parse_from(line.split(' '))?.reports;
        args.check()?;
        Ok(args)
    }

    #[test]
    fn one_report_may_go_to_standard_output() {
        for line in [
            "x --json",
            "x --html -",
            "x --json a.json --junit - --strict",
            "x --markdown a.md --html b.html",
        ] {
            parse(line).unwrap();
        }
        for line in ["x --json --html -", "x --json - --junit -", "x --markdown - --html -"] {
            let refused = parse(line).unwrap_err().to_string();
            assert!(refused.contains("only one of"), "{line}: {refused}");
        }
    }

    #[test]
    fn each_shape_is_written_and_one_that_cannot_be_spoils_no_other() {
        let folder = std::env::temp_dir().join(format!("kchaos-reports-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        let line = ["json", "junit", "markdown", "html"]
            .map(|shape| format!("--{shape} {}", file(shape).display()))
            .join(" ");
        let args = parse(&format!("x {line}")).unwrap();
        fs::create_dir(file("json")).unwrap();
        let Example { report, input, .. } = examples::named("pass");
        let refused = args.write(&report, &input).unwrap_err().to_string();
        assert_eq!(refused, file("json").display().to_string());
        for (shape, begins) in [("junit", "<?xml"), ("markdown", "## ✅ PASS"), ("html", "<!DOCTYPE html>")]
        {
            assert!(fs::read_to_string(file(shape)).unwrap().starts_with(begins), "{shape}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said_before_the_run() {
        let refused = parse("x --html /nowhere/at/all/a.html").unwrap_err().to_string();
        assert_eq!(refused, "/nowhere/at/all/a.html: there is no such folder");
        assert!(parse("x --junit /").unwrap_err().to_string().contains("is a folder"));
        assert!(parse("x --strict").unwrap_err().to_string().contains("--junit"));
    }
}
