//! What the operator types, save `run`: the command line, and each command that is no service.
//!
//! A command reads the configuration, asks the running service over its control socket, or speaks MQTT
//! like any client. None opens the database or a device. Nothing is asked, coloured or animated where
//! there is no terminal.

mod check;
mod status;
mod passwd;
mod mqtt;

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use check::check;
pub use mqtt::{ClientArgs, PubArgs, SubArgs, publish, subscribe};
pub use passwd::{PasswdArgs, passwd};
pub use status::{StatusArgs, render, status};

use crate::config::Refused;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about = "MQTT broker and store-and-forward bridge for field gateways")]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service in the foreground
    Run(ConfigArgs),
    /// Check the configuration and tell everything that is wrong with it
    Check(ConfigArgs),
    /// Show how the running service does
    Status(StatusArgs),
    /// Publish messages, with mosquitto_pub's options
    Pub(PubArgs),
    /// Print messages, with mosquitto_sub's options
    Sub(SubArgs),
    /// Set, change or delete a password in a password file
    Passwd(PasswdArgs),
    /// What is no command, or none of this version.
    #[command(external_subcommand)]
    NotYet(Vec<OsString>),
}

/// Which configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file; conf.d/*.toml beside it is read too [default: /etc/tidegate/tidegate.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The configuration is wrong.
    Configuration(Refused),
    /// It was tried, and failed.
    Failed(anyhow::Error),
    /// It was tried, and failed, and nothing shall be said.
    Silent,
}

impl Failure {
    /// It was tried, and failed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Failure {
        Failure::Failed(error.into())
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Silent => 1,
            Failure::Usage(_) | Failure::Configuration(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => write!(out, "tidegate: {text}"),
            Failure::Configuration(refused) => write!(out, "{refused}"),
            Failure::Silent => Ok(()),
            // Errors are worded to follow "cannot".
            Failure::Failed(error) => write!(out, "tidegate: cannot {}", in_full(error)),
        }
    }
}

/// Says something on standard output; whoever has closed it wants no more, which is no failure.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(anyhow::Error::new(error).context("write to standard output")))
        }
        _ => Ok(()),
    }
}

/// An error with its causes, save those that its text tells already.
pub(super) fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        if told.is_empty() {
            cause
        } else if told.contains(&cause) {
            told
        } else {
            format!("{told}: {cause}")
        }
    })
}

/// Reads the command line; help, and what is wrong with it, is told as clap tells it, and ends the process.
///
/// # Errors
/// An option of mosquitto's that this version has not.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Cli, Failure> {
    let words: Vec<OsString> = words.collect();
    Cli::try_parse_from(&words).map_err(|error| {
        let text = words.get(1).and_then(|command| mqtt::not_yet(&command.to_string_lossy(), &error));
        text.map(Failure::Usage).unwrap_or_else(|| error.exit())
    })
}

/// Answers for a command that this version has not, or that no version has.
pub fn not_yet(words: &[OsString]) -> Result<(), Failure> {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    Err(Failure::Usage(match NOT_YET.contains(&word.as_ref()) {
        true => format!("{word} is not in this version"),
        false => format!("there is no command {word:?}; try tidegate --help"),
    }))
}

/// Commands of the product whose features are not built.
const NOT_YET: &[&str] = &["demo", "diag", "import", "modbus", "queue", "reload", "serial", "verify"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = crate::control::AskError::NoAnswer(std::io::Error::other("it hung up"));
        let failure = Failure::failed(anyhow::Error::new(error).context("show the status"));
        let expected = "tidegate: cannot show the status: get an answer from the service: it hung up";
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn what_is_not_built_is_refused_as_wrong_usage() {
        let check = |words: &[&str], expected: &str| {
            let cli = Cli::try_parse_from([&["tidegate"], words].concat()).expect("parsed");
            let Command::NotYet(words) = cli.command else { panic!("taken for another command") };
            let failure = not_yet(&words).expect_err("refused");
            assert_eq!(failure.code(), 2);
            assert!(failure.to_string().contains(expected), "{failure}");
        };
        check(&["reload"], "not in this version");
        check(&["modbus", "scan", "--tcp", "192.0.2.1"], "not in this version");
        check(&["frobnicate"], "no command");
    }

    #[test]
    fn an_option_of_mosquitto_s_that_is_not_built_is_refused_as_such() {
        let check = |words: &[&str], option: &str| {
            let line = [&["tidegate"], words].concat();
            let failure = parse(line.iter().map(OsString::from)).expect_err("refused");
            assert_eq!(failure.code(), 2);
            assert_eq!(failure.to_string(), format!("tidegate: {option} is not in this version"));
        };
        for letter in ["-A", "-D", "-S", "-U"] {
            check(&["pub", "-t", "a", "-n", letter, "x"], &format!("{letter} of pub"));
            check(&["sub", letter, "x", "-t", "a"], &format!("{letter} of sub"));
        }
        for letter in ["-F", "-T"] {
            check(&["sub", "-t", "a", letter, "%t"], &format!("{letter} of sub"));
        }
        check(&["pub", "-t", "a", "-n", "--proxy", "x"], "--proxy of pub");
        check(&["sub", "-t", "a", "-vF%t"], "-F of sub");
        let known = |words: &[&str]| {
            let error = Cli::try_parse_from(words).expect_err("wrong");
            mqtt::not_yet(words[1], &error)
        };
        assert_eq!(known(&["tidegate", "pub", "-t", "a", "-n", "-F", "x"]), None, "it is no option of pub");
        assert_eq!(known(&["tidegate", "sub", "-t", "a", "-Z"]), None);
    }
}
