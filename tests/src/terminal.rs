//! The command on a pseudo terminal, which `script` makes.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    input: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    /// Starts a command, with its arguments and nothing but its own environment.
    pub fn start(command: &Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = words.map(|word| quoted(word.to_str().expect("text")));
        let line = format!("exec {}", words.collect::<Vec<_>>().join(" "));
        let mut script = Command::new("script");
        script
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                script.env(name, value);
            }
        }
        let mut child = script
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script starts");
        let input = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let reader = {
            let shown = Arc::clone(&shown);
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(len) = output.read(&mut piece) {
                    if len == 0 {
                        return;
                    }
                    let mut shown = shown.lock().expect("no panic");
                    shown.extend_from_slice(&piece[..len]);
                }
            })
        };
        Self {
            child,
            input,
            shown,
            reader,
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).expect("it reads");
        self.input.flush().expect("it reads");
    }

    /// Waits until something is shown.
    pub fn wait_for(&self, text: &str) {
        let began = Instant::now();
        while !self.shown().contains(text) {
            assert!(began.elapsed() < PATIENCE, "{text:?}: {}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end. Returns its exit code, and all that was shown.
    pub fn end(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if began.elapsed() > PATIENCE {
                let shown = self.shown();
                self.kill();
                panic!("it does not end: {shown}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        drop(self.input);
        self.reader.join().expect("no panic");
        let shown = self.shown.lock().expect("no panic").clone();
        (status.code(), String::from_utf8_lossy(&shown).into_owned())
    }

    /// Ends it, whatever it does.
    pub fn kill(&mut self) {
        // The command goes with its terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns what was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no panic")).into_owned()
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
