//! A terminal, by tmux: a program on a screen that is read, with keys that are sent.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{TestEnv, run, wait_until};

/// Terminals that were opened.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// A terminal with one program; it is hung up with this value.
#[derive(Debug)]
pub struct Terminal<'a> {
    env: &'a TestEnv,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// Opens one of so many columns and lines, and has a shell run `command` on it,
    /// which prints the exit code of that.
    #[must_use]
    pub fn open(env: &'a TestEnv, (columns, lines): (u16, u16), command: &str) -> Self {
        let config = env.path().join("tmux.conf");
        fs::write(&config, "set -g status off\n").expect("the test's folder can be written to");
        // A server that ends may still be there when the next one begins.
        let socket = format!("tmux-{}", OPENED.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { env, socket };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let command = format!("{command}; echo \"exit code $?\"; exec sleep 600");
        run(terminal.tmux().arg("-f").arg(config).args([
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &lines,
            &command,
        ]))
        .succeeds();
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = self.env.command("tmux");
        tmux.env("LANG", "C.UTF-8")
            .arg("-S")
            .arg(self.env.path().join(&self.socket));
        tmux
    }

    /// Sends keys, by tmux's names.
    pub fn keys(&self, keys: &[&str]) {
        run(self.tmux().arg("send-keys").args(keys)).succeeds();
    }

    /// What is on the screen.
    #[must_use]
    pub fn screen(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p"]))
            .succeeds()
            .stdout
    }

    /// The same, with the sequences that colour it.
    #[must_use]
    pub fn coloured(&self) -> String {
        run(self.tmux().args(["capture-pane", "-p", "-e"]))
            .succeeds()
            .stdout
    }

    /// Waits until these words are on the screen, and gives that.
    pub fn shows(&self, words: &str) -> String {
        let mut screen = String::new();
        wait_until(&format!("{words:?} is on the screen"), || {
            screen = self.screen();
            screen.contains(words)
        });
        screen
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, columns: u16, lines: u16) {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        run(self
            .tmux()
            .args(["resize-window", "-x", &columns, "-y", &lines]))
        .succeeds();
    }

    /// Whether the program has the whole screen, and not the shell.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.tells("#{alternate_on}") == "1"
    }

    /// What tmux knows of the terminal by this name.
    #[must_use]
    pub fn tells(&self, name: &str) -> String {
        let told = run(self.tmux().args(["display-message", "-p", name])).succeeds();
        told.stdout.trim().to_owned()
    }

    /// Hangs up.
    pub fn hang_up(&self) {
        run(self.tmux().arg("kill-server")).succeeds();
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It may have been hung up.
        let _ = self.tmux().arg("kill-server").output();
    }
}
