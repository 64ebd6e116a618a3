//! The `tidegate` binary: reads the command line and hands on.
//!
//! Exit codes: 0 well, 1 failed, 2 wrong usage or wrong configuration.

use std::process::ExitCode;

use clap::Parser as _;
use tidegate::commands::{self, Cli, Command, ConfigArgs, Failure};
use tidegate::{config, journal, service};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => commands::check(&args),
        Command::Status(args) => commands::status(&args),
        Command::Pub(args) => commands::publish(&args),
        Command::Sub(args) => commands::subscribe(&args),
        Command::Passwd(args) => commands::passwd(&args),
        Command::NotYet(words) => commands::not_yet(&words),
    };
    match result {
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
    let loaded = config::load(args.config.as_deref()).map_err(Failure::Configuration)?;
    let _journal = journal::start(&loaded.log).map_err(Failure::failed)?;
    for warning in &loaded.warnings {
        tracing::warn!(target: "tidegate::config", "{warning}");
    }
    for wrong in &loaded.unready {
        tracing::error!(target: "tidegate::config", "{wrong}");
    }
    service::run(loaded).map_err(Failure::failed)
}
