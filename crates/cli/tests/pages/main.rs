//! What the pages say to type is typed.
//!
//! Every console block of the README and of `docs/` either is run, in the order of its page, by a
//! bash in a scratch folder of its own, or says in a comment before it why it isn't:
//!
//! ```text
//! <!-- run -->                                   from where the block before has left off
//! <!-- run in examples/basement -->              from a copy of this folder of the repository
//! <!-- run, but not: undercroft up: metal -->    all but the commands that begin so
//! <!-- not run: e2e a_rack_leaves_nothing_behind -->
//! ```
//!
//! Reasons are `metal`, `root`, `network`, `minutes`, `e2e NAME`, which names the end-to-end test
//! that does the same and must exist, and `test NAME`, a test that takes the commands out of the page. What a block shows below a command is what the command prints,
//! with `…` for any text and a line of `...` for any lines. `exit code N` in a command's comment names a
//! code that it may end with beside 0.

#[cfg(test)]
mod first_job;
#[cfg(test)]
mod page;
#[cfg(test)]
mod session;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use undercroft_testkit::{repository, skip, tracked};

    use crate::{
        page::{Mark, Page, pages},
        session::run,
    };

    #[test]
    fn every_block_is_run_or_says_why_not() {
        let mut faults = Vec::new();
        let (mut run, mut not_run) = (0, BTreeMap::<String, usize>::new());
        for page in pages() {
            for block in &page.blocks {
                match &block.mark {
                    Ok(Mark::Run { .. }) => run += 1,
                    Ok(Mark::Not(reason)) => {
                        *not_run.entry(reason.kind().to_owned()).or_default() += 1;
                    }
                    Err(why) => faults.push(format!("{}:{}: {why}", page.name, block.line)),
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        println!("{run} blocks are run; not run: {not_run:?}");
        assert!(run >= 12, "{run}");
    }

    #[test]
    fn the_tests_that_blocks_name_exist() {
        let folder = repository();
        let tests: String = tracked("crates/cli/tests")
            .iter()
            .filter(|file| file.extension().is_some_and(|ending| ending == "rs"))
            .map(|file| std::fs::read_to_string(folder.join(file)).unwrap())
            .collect();
        for page in pages() {
            for name in page.named_tests() {
                assert!(
                    tests.contains(&format!("fn {name}()")),
                    "{} names the test {name}, which doesn't exist",
                    page.name
                );
            }
        }
    }

    /// What stands in a page between back-quotes and reads as a test's name is one.
    #[test]
    fn the_tests_that_the_page_of_lendings_security_names_exist() {
        let folder = repository();
        let read = |file: &std::path::PathBuf| std::fs::read_to_string(folder.join(file)).unwrap();
        let page = read(&"docs/lending-security.md".into());
        let sources = tracked("crates");
        let sources = sources
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == "rs"));
        let tests: String = sources.map(read).collect();
        let is_name = |word: &&str| {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            word.matches('_').count() >= 2 && word.chars().all(letters)
        };
        let names: Vec<_> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
        assert!(names.len() > 30, "{names:?}");
        for name in names {
            assert!(
                tests.contains(&format!("fn {name}()")),
                "docs/lending-security.md names the test {name}, which doesn't exist"
            );
        }
    }

    /// Each command, in the order of the page, with what it shows.
    #[test]
    fn the_pages_run_word_by_word() {
        for program in ["bash", "git"] {
            if std::process::Command::new(program)
                .arg("--version")
                .output()
                .is_err()
            {
                skip(format!("{program} is missing"));
                return;
            }
        }
        let pages: Vec<Page> = pages().into_iter().filter(Page::has_session).collect();
        let faults: Vec<String> = std::thread::scope(|scope| {
            let runs: Vec<_> = pages.iter().map(|page| scope.spawn(|| run(page))).collect();
            runs.into_iter()
                .flat_map(|run| run.join().unwrap())
                .collect()
        });
        assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
    }
}
