//! What makes a cluster of an API: kube-controller-manager and kube-scheduler, so that Deployments and DaemonSets have
//! Pods and namespaces have their ServiceAccount.

use std::process::Command;

use anyhow::Result;

use super::process::Process;
use super::{ApiServer, User, credentials, program, programs};

const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// The users that the API server must know ([`Options::users`](super::Options::users)); it has roles for them.
pub fn users() -> [User; 2] {
    [MANAGER, SCHEDULER].map(|name| User { name: name.into(), groups: Vec::new() })
}

/// Both running. Dropping the value kills them.
pub struct Controllers {
    processes: [Process; 2],
}

impl Controllers {
    /// The end of what they logged, for messages.
    pub fn last_words(&self) -> String {
        let words = self.processes.iter().map(Process::last_words);
        words.collect::<Vec<_>>().join("\n---\n")
    }
}

impl ApiServer {
    /// Starts both where the API server runs. The first call on a machine builds them.
    pub async fn start_controllers(&self) -> Result<Controllers> {
        let names = ["kube-controller-manager", "kube-scheduler"];
        let programs = tokio::task::spawn_blocking(move || programs(&names)).await??;
        let command = |name: &str, user: &str| -> Command {
            let mut command = program(&programs, name, self.options.netns.as_deref());
            command.arg(format!("--kubeconfig={}", self.kubeconfig_of(user).display())).args([
                "--leader-elect=false",
                "--secure-port=0",
                "--profiling=false",
            ]);
            command
        };
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let mut manager = command(names[0], MANAGER);
        manager
            // Each controller by an account of its own, for which the API server has a role.
            .arg("--use-service-account-credentials=true")
            .arg(format!("--root-ca-file={}", file(credentials::CA_CERTIFICATE)))
            .arg(format!("--service-account-private-key-file={}", file(credentials::SERVICE_ACCOUNT_KEY)));
        Ok(Controllers {
            processes: [
                Process::start("kube-controller-manager", manager, self.directory.path())?,
                Process::start("kube-scheduler", command(names[1], SCHEDULER), self.directory.path())?,
            ],
        })
    }
}
