//! A page's commands in one bash.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command as Program, Stdio},
};

use tempfile::TempDir;
use undercroft_testkit::copy_tracked;

use crate::page::{Command, Mark, Page};

/// Stands alone on a line before and after what a command prints.
const BORDER: &str = "=-=-=-= pages =-=-=-=";

/// Runs what a page says to run; gives what didn't go as it says.
pub(crate) fn run(page: &Page) -> Vec<String> {
    let root = TempDir::new().unwrap();
    let (home, work) = (root.path().join("home"), root.path().join("work"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&work).unwrap();
    let mut script = String::from("set -o pipefail\n");
    let mut commands: Vec<&Command> = Vec::new();
    for (i, block) in page.blocks.iter().enumerate() {
        let Ok(Mark::Run { folder, but }) = &block.mark else {
            continue;
        };
        if let Some(folder) = folder {
            let copy = root.path().join(format!("copy-{i}"));
            copy_tracked(folder, &copy).unwrap();
            writeln!(script, "cd {}", quoted(&copy)).unwrap();
        }
        for command in &block.commands {
            if but
                .iter()
                .any(|(start, _)| command.text.starts_with(start.as_str()))
            {
                continue;
            }
            writeln!(
                script,
                "echo '{BORDER}'\n{{\n{}\n}} </dev/null 2>&1\necho; echo \"{BORDER} $?\"",
                command.text
            )
            .unwrap();
            commands.push(command);
        }
    }
    let said = bash(&script, &home, &work);
    judge(page, &commands, &said)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

fn bash(script: &str, home: &Path, work: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_undercroft"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let file = home.join("page.sh");
    // The exit code is of the command, not of the line break after its output.
    let script = script
        .replace("\necho; echo \"", "\nrc=$?; echo; echo \"")
        .replace(" $?\"", " $rc\"");
    std::fs::write(&file, script).unwrap();
    let output = Program::new("bash")
        .args(["--norc", "--noprofile"])
        .arg(&file)
        .current_dir(work)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("EDITOR", "true")
        .env("LC_ALL", "C.UTF-8")
        .env("GIT_AUTHOR_NAME", "Page")
        .env("GIT_AUTHOR_EMAIL", "page@example.org")
        .env("GIT_COMMITTER_NAME", "Page")
        .env("GIT_COMMITTER_EMAIL", "page@example.org")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

fn judge(page: &Page, commands: &[&Command], said: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rest = said;
    for command in commands {
        let place = format!("{}:{}: {}", page.name, command.line, command.text);
        let begin = format!("{BORDER}\n");
        let end = format!("{BORDER} ");
        let parts = rest
            .split_once(&begin)
            .and_then(|(_, after)| after.split_once(&end));
        let Some((printed, after)) = parts else {
            faults.push(format!("{place}\nwas not run:\n{rest}"));
            break;
        };
        let code: String = after.chars().take_while(char::is_ascii_digit).collect();
        if code != "0" && code != command.exit_code.to_string() {
            faults.push(format!("{place}\nended with exit code {code}:\n{printed}"));
        } else if !command.shown.is_empty() && !shows(&command.shown, printed) {
            faults.push(format!(
                "{place}\nshould show:\n{}\nand shows:\n{printed}",
                command.shown.join("\n")
            ));
        }
        rest = after;
    }
    faults
}

/// Whether what was printed is what is shown: line by line, `…` for any text, a line of `...` or `…`
/// for any lines.
pub(crate) fn shows(shown: &[String], printed: &str) -> bool {
    let printed: Vec<&str> = printed
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .collect();
    let mut at = 0;
    let mut any = false;
    for line in shown.iter().map(|l| l.trim_end()).filter(|l| !l.is_empty()) {
        if line == "..." || line == "…" {
            any = true;
            continue;
        }
        let rest = printed.get(at..).unwrap_or_default();
        let Some(found) = rest.iter().position(|p| alike(line, p)) else {
            return false;
        };
        if found > 0 && !any {
            return false;
        }
        at += found + 1;
        any = false;
    }
    any || at == printed.len()
}

/// Whether a line is as the page has it, with `…` for any text.
fn alike(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn lines_are_compared_with_gaps() {
    let is = |shown: &[&str], printed: &str| {
        let shown: Vec<String> = shown.iter().map(|l| (*l).to_owned()).collect();
        shows(&shown, printed)
    };
    assert!(is(&["a", "...", "d"], "a\nb\nc\nd\n"));
    assert!(!is(&["a", "d"], "a\nb\nd\n"));
    assert!(!is(&["a"], "a\nb\n"));
    assert!(is(&["...", "b"], "a\nb\n"));
    assert!(is(&["x … z"], "x y z\n"));
    assert!(!is(&["x … z"], "x y\n"));
}
