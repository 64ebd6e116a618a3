//! The `tidegate` binary: reads the command line and hands on.
//!
//! Exit codes: 0 well, 1 failed, 2 wrong usage or wrong configuration.

use std::process::ExitCode;

use tidegate::commands::{self, Command, ConfigArgs, Failure};
use tidegate::service::Service;
use tidegate::{config, journal};

fn main() -> ExitCode {
    let result = commands::parse(std::env::args_os()).map(|line| match line.command {
        Command::Run(args) => run(&args),
        Command::Check(args) => commands::check(&args),
        Command::Status(args) => commands::status(&args),
        Command::Pub(args) => commands::publish(&args),
        Command::Sub(args) => commands::subscribe(&args),
        Command::Passwd(args) => commands::passwd(&args),
        Command::NotYet(words) => commands::not_yet(&words),
    });
    match result.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Silent) {
                eprintln!("{failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn run(args: &ConfigArgs) -> Result<(), Failure> {
    // First of all: a signal that nobody hears ends the process as it stands.
    let mut service = Service::prepare().map_err(Failure::failed)?;
    // Its files may lie where nobody answers.
    let loaded = service.beside(|| config::load(args.config.as_deref())).map_err(Failure::failed)?;
    let loaded = loaded.map_err(Failure::Configuration)?;
    let _journal = journal::start(&loaded.log).map_err(Failure::failed)?;
    for warning in &loaded.warnings {
        tracing::warn!(target: "tidegate::config", "{warning}");
    }
    for wrong in &loaded.unready {
        tracing::error!(target: "tidegate::config", "{wrong}");
    }
    service.run(&loaded).map_err(Failure::failed)
}
