//! A process of this very program in a namespace, asked line by line.
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plainroute_tests::netns::Netns;

use crate::clock::Moment;

/// A process that answers each line with a line. It ends with its value.
pub(crate) struct Process {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Process {
    /// Starts `plainroute-bench ARGUMENTS`.
    pub(crate) fn start(netns: &Netns, arguments: &[&str]) -> Result<Process> {
        let own = std::env::current_exe()?.display().to_string();
        let argv: Vec<&str> = std::iter::once(own.as_str()).chain(arguments.iter().copied()).collect();
        let mut command = netns.command(&argv);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {arguments:?}"))?;
        let questions = child.stdin.take().context("piped")?;
        let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let (sender, answers) = channel();
        // Ends with the process, whose end closes the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Process { child, questions, answers })
    }

    /// The process group, for [`crate::usage::Usage`].
    pub(crate) fn group(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line without waiting for its answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.questions, "{line}").with_context(|| format!("ask {line}"))
    }

    /// Waits for an answer.
    pub(crate) fn answer(&mut self, patience: Duration) -> Result<String> {
        let answer = self.answers.recv_timeout(patience).context("a process of ours does not answer")?;
        match answer.strip_prefix("error: ") {
            Some(error) => bail!("a process of ours says: {error}"),
            None => Ok(answer),
        }
    }

    /// Both.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        self.tell(line)?;
        self.answer(Duration::from_secs(60)).with_context(|| format!("asked {line}"))
    }

    /// Waits for an answer that is a moment.
    pub(crate) fn moment(&mut self, patience: Duration) -> Result<Moment> {
        let answer = self.answer(patience)?;
        answer.trim().parse().map(Moment).with_context(|| format!("no moment: {answer}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is not reaped before `wait`, so the number is surely ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
