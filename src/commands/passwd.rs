//! `tidegate passwd`: one user's lines of a password file.
//!
//! The file is written anew beside the old one and takes its place at once, so the service never reads
//! half of it. All other lines stay as they are, mosquitto's and comments too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::Failure;
use crate::{auth, control};

/// `tidegate passwd`.
#[derive(Debug, Args)]
pub struct PasswdArgs {
    /// Make a new file, in place of one that is there
    #[arg(short = 'c', conflicts_with = "delete")]
    pub create: bool,
    /// Delete the user
    #[arg(short = 'D')]
    pub delete: bool,
    /// Take the password from the command line, where other users of the machine can see it
    #[arg(short = 'b', conflicts_with = "delete")]
    pub batch: bool,
    /// Let the user log in by SCRAM-SHA-256 too; who steals the file guesses such a password more easily
    #[arg(long, conflicts_with = "delete")]
    pub scram: bool,
    /// The password file
    pub file: PathBuf,
    /// The user
    pub user: String,
    /// The password, with -b
    #[arg(required_if_eq("batch", "true"))]
    pub password: Option<String>,
}

/// Sets or deletes one user's password.
pub fn passwd(args: &PasswdArgs) -> Result<(), Failure> {
    check_user(&args.user).map_err(Failure::Usage)?;
    if args.password.is_some() && !args.batch {
        return Err(Failure::Usage("a password on the command line needs -b".to_owned()));
    }
    change(args).map_err(Failure::Failed)
}

fn change(args: &PasswdArgs) -> anyhow::Result<()> {
    let old = if args.create { None } else { Some(read(&args.file)?) };
    let lines = old.unwrap_or_default();
    let new = if args.delete {
        let new = without(&lines, &args.user);
        anyhow::ensure!(new != lines, "delete {}: it is not in {}", args.user, args.file.display());
        new
    } else {
        let password = match &args.password {
            Some(password) => password.clone(),
            None => ask(&args.user)?,
        };
        anyhow::ensure!(!password.is_empty(), "set a password: it is empty");
        with(&lines, &args.user, &hashes(&password, args.scram)?)
    };
    let write = || format!("write {}", args.file.display());
    replace(&args.file, &new).with_context(write)?;
    if !args.scram && !args.delete && lines.lines().any(|line| is_for_scram(line, &args.user)) {
        eprintln!("{} cannot log in by SCRAM-SHA-256 any more: --scram keeps that", args.user);
    }
    Ok(())
}

/// What stands behind the user's name: on a line of its own, each.
fn hashes(password: &str, scram: bool) -> anyhow::Result<Vec<String>> {
    let mut hashes = vec![auth::hash(password.as_bytes()).map_err(anyhow::Error::new)?];
    if scram {
        // Clients prepare other characters before they hash them (SASLprep), each as well as it can.
        let plain = password.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        anyhow::ensure!(plain, "set a password for SCRAM: only printable ASCII is the same in every client");
        hashes.push(auth::hash_for_scram(password.as_bytes()).map_err(anyhow::Error::new)?);
    }
    Ok(hashes)
}

fn check_user(user: &str) -> Result<(), String> {
    let odd = user.is_empty()
        || user.starts_with('#')
        || user.contains(':')
        || user.chars().any(char::is_control)
        || user.trim() != user;
    if odd {
        return Err(format!(
            "found user {user:?}, expected a name without \":\", \"#\" at its start, and spaces around it"
        ));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            anyhow::bail!("read {}: it is not there; -c makes a new one", path.display())
        }
        result => result.with_context(|| format!("read {}", path.display())),
    }
}

/// The lines with this user's replaced, or added at the end.
fn with(lines: &str, user: &str, hashes: &[String]) -> String {
    let line: String = hashes.iter().map(|hash| format!("{user}:{hash}\n")).collect();
    let mut new = String::new();
    let mut set = false;
    for old in lines.lines() {
        if !is_of(old, user) {
            new.push_str(old);
            new.push('\n');
        } else if !std::mem::replace(&mut set, true) {
            new.push_str(&line);
        }
    }
    if set { new } else { new + &line }
}

fn without(lines: &str, user: &str) -> String {
    lines.split_inclusive('\n').filter(|line| !is_of(line, user)).collect()
}

fn is_for_scram(line: &str, user: &str) -> bool {
    is_of(line, user) && line.contains(auth::SCHEME)
}

fn is_of(line: &str, user: &str) -> bool {
    line.trim_start().strip_prefix(user).is_some_and(|rest| rest.starts_with(':'))
}

/// Puts a new file in the old one's place, with its owner and mode. A new one belongs to the service's
/// group, which must read it, where there is such a group and we may give it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays a link: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let result = write_beside(&beside, &path, text).and_then(|()| fs::rename(&beside, &path));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result?;
    // The name is on disk when its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_beside(beside: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(text.as_bytes())?;
    let mode = match fs::metadata(path) {
        Ok(old) => {
            // Who may write the folder and is not the owner keeps the file, under his own name.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
            old.permissions().mode() & 0o777
        }
        Err(_) => match control::group() {
            Some(group) if fchown(&file, None, Some(group)).is_ok() => 0o640,
            _ => 0o600,
        },
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Asks for a password: twice and unseen at a terminal, else one line of standard input.
fn ask(user: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        let limit = u64::try_from(PASSWORD_MAX).unwrap_or(u64::MAX);
        stdin.lock().take(limit).read_line(&mut line).context("read the password")?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    let first = ask_unseen(&format!("Password of {user}: "))?;
    let second = ask_unseen("Once more: ")?;
    anyhow::ensure!(first == second, "set a password: the two are not the same");
    Ok(first)
}

fn ask_unseen(question: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).context("ask at this terminal")?;
    let mut unseen = before.clone();
    // Without signals the terminal cannot be left mute; Ctrl-C ends the line and is seen below.
    unseen.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
    end_line_at_interrupt(&mut unseen);
    tcsetattr(&stdin, OptionalActions::Flush, &unseen).context("ask at this terminal")?;
    eprint!("{question}");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Now, &before).context("give the terminal back")?;
    eprintln!();
    read.context("read the password")?;
    anyhow::ensure!(!line.contains(char::from(CTRL_C)), "set a password: interrupted");
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[allow(clippy::indexing_slicing, reason = "special codes are indexed by their name, which always exists")]
fn end_line_at_interrupt(terminal: &mut Termios) {
    terminal.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
}

/// Bytes of a password: what CONNECT can carry.
const PASSWORD_MAX: usize = 65_535;
const CTRL_C: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(file: &Path, user: &str, password: Option<&str>) -> PasswdArgs {
        PasswdArgs {
            create: !file.exists(),
            delete: password.is_none(),
            batch: password.is_some(),
            scram: false,
            file: file.to_owned(),
            user: user.to_owned(),
            password: password.map(str::to_owned),
        }
    }

    fn fits(file: &Path, user: &str, password: &str) -> bool {
        let text = fs::read_to_string(file).expect("readable");
        auth::Passwords::parse(&text).expect("well formed").verify(user, password.as_bytes())
    }

    #[test]
    fn a_password_that_was_set_fits_until_it_is_changed_or_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passwd");
        let set = |user: &str, password: Option<&str>| passwd(&arguments(&file, user, password));
        set("anna", Some("one")).expect("set");
        set("bert", Some("two")).expect("set");
        assert!(fits(&file, "anna", "one") && fits(&file, "bert", "two"));
        set("anna", Some("three")).expect("changed");
        assert!(!fits(&file, "anna", "one") && fits(&file, "anna", "three") && fits(&file, "bert", "two"));
        set("anna", None).expect("deleted");
        assert!(!fits(&file, "anna", "three") && fits(&file, "bert", "two"));
        assert!(set("anna", None).is_err_and(|failure| failure.code() == 1), "it is gone already");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("listed").collect();
        assert_eq!(left.len(), 1, "nothing is left beside the file");
    }

    #[test]
    fn the_file_keeps_its_mode_and_other_lines_stay_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passwd");
        fs::write(&file, "# ours\n\nanna:$6$x$y\nann:$7$z\nbert:$6$q$r").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).expect("set");
        passwd(&arguments(&file, "anna", Some("one"))).expect("set");
        let text = fs::read_to_string(&file).expect("readable");
        assert!(text.starts_with("# ours\n\nanna:$argon2id$"), "{text}");
        assert!(text.ends_with("\nann:$7$z\nbert:$6$q$r\n"), "{text}");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o604);
    }

    #[test]
    fn with_scram_a_user_has_two_lines_and_the_next_password_has_none_of_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passwd");
        let set = |user: &str, password: &str, scram: bool| {
            passwd(&PasswdArgs { scram, ..arguments(&file, user, Some(password)) })
        };
        let lines = |user: &str| {
            let text = fs::read_to_string(&file).expect("readable");
            auth::Passwords::parse(&text).expect("well formed");
            let lines: Vec<&str> = text.lines().filter(|line| is_of(line, user)).collect();
            (lines.len(), lines.iter().filter(|line| is_for_scram(line, user)).count())
        };
        set("anna", "one", true).expect("set");
        set("bert", "two", false).expect("set");
        assert_eq!((lines("anna"), lines("bert")), ((2, 1), (1, 0)));
        assert!(fits(&file, "anna", "one") && fits(&file, "bert", "two"));
        let text = fs::read_to_string(&file).expect("readable");
        assert!(text.contains("\nanna:$scram-sha-256$100000$"), "{text}");
        set("anna", "three", true).expect("changed");
        assert_eq!(lines("anna"), (2, 1));
        set("anna", "four", false).expect("changed");
        assert_eq!(lines("anna"), (1, 0));
        set("anna", "five", true).expect("changed");
        passwd(&arguments(&file, "anna", None)).expect("deleted");
        assert_eq!((lines("anna"), lines("bert")), ((0, 0), (1, 0)));
        let failure = set("anna", "fünf", true).expect_err("refused");
        assert!(failure.to_string().contains("printable ASCII"), "{failure}");
        assert_eq!(lines("anna"), (0, 0));
    }

    #[test]
    fn lines_of_mosquitto_passwd_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("passwd");
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&file)
            .args(["anna", "spring tide"])
            .status();
        assert!(made.expect("mosquitto_passwd is installed").success());
        assert!(fits(&file, "anna", "spring tide"));
        passwd(&arguments(&file, "bert", Some("two"))).expect("set");
        assert!(fits(&file, "anna", "spring tide") && fits(&file, "bert", "two"));
    }

    #[test]
    fn a_name_that_would_break_the_file_is_wrong_usage() {
        for user in ["", "a:b", "#a", "a\nb", " a"] {
            let failure =
                passwd(&arguments(Path::new("/nonexistent/x"), user, Some("x"))).expect_err("refused");
            assert_eq!(failure.code(), 2, "{user:?}");
        }
        let failure =
            passwd(&PasswdArgs { create: false, ..arguments(Path::new("/nonexistent/x"), "a", Some("x")) });
        assert!(failure.is_err_and(|failure| failure.to_string().contains("-c makes a new one")));
    }
}
