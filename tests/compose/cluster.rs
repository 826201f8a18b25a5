//! The containers of compose.yaml, in the engine of `DOCKER_HOST`.

use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Tests take turns: there is one engine.
static TURN: Mutex<()> = Mutex::new(());
/// Once for all tests.
static IMAGE: LazyLock<()> = LazyLock::new(|| {
    docker("compose build --build-arg PROFILE=quick", &[]).expect_code(0);
});

/// What compose.yaml makes of the engine. It stays for the next test, which starts what it misses, unless a test failed; with
/// the engine it ends.
pub(crate) struct Cluster {
    _turn: MutexGuard<'static, ()>,
}

#[expect(clippy::unused_self, reason = "only whoever has the turn starts and stops things")]
impl Cluster {
    /// Whatever runs of it: all or nothing.
    pub(crate) fn unchanged() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        LazyLock::force(&IMAGE);
        Self { _turn: turn }
    }

    /// Everything runs, and the bag of `producer` is done and gathered.
    pub(crate) fn up() -> Self {
        let cluster = Self::unchanged();
        cluster.run_bag("staged");
        cluster
    }

    /// Starts what does not run, does the bag of `producer` by this result path, and gives its summary.
    pub(crate) fn run_bag(&self, results: &str) -> String {
        self.compose("rm --force --stop producer").expect_code(0);
        let results = [("BAGPRESS_RESULTS", results)];
        docker("compose up --detach", &results).expect_code(0);
        let producer = self.compose("ps --all --quiet producer").expect_code(0).stdout;
        let code = docker(&format!("wait {producer}"), &[]).expect_code(0).stdout;
        let said = self.logs("producer");
        assert_eq!(code.trim(), "0", "{said}");
        said
    }

    /// `docker compose` with these words.
    pub(crate) fn compose(&self, words: &str) -> Ended {
        docker(&format!("compose {words}"), &[])
    }

    /// What a shell in a container of a service prints, whether it succeeds or not.
    pub(crate) fn shell(&self, service: &str, script: &str) -> String {
        let words = format!("compose run --rm --no-deps --entrypoint sh {service} -c");
        run(&[words.split_whitespace().collect(), vec![script]].concat(), &[]).stdout
    }

    /// What a service said.
    pub(crate) fn logs(&self, service: &str) -> String {
        let ended = self.compose(&format!("logs --no-log-prefix --no-color {service}"));
        ended.expect_code(0).stdout
    }

    /// What the engine knows about each container and its service, those that ended as well.
    pub(crate) fn containers(&self) -> Vec<(String, Value)> {
        let names = self.compose("ps --all --quiet").expect_code(0).stdout;
        let words = format!("inspect {}", names.replace('\n', " "));
        let containers: Vec<Value> = docker(&words, &[]).expect_code(0).json();
        let service = |container: &Value| {
            let label = &container["Config"]["Labels"]["com.docker.compose.service"];
            label.as_str().unwrap().to_owned()
        };
        containers.into_iter().map(|container| (service(&container), container)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose("logs --tail 20").stdout);
            drop(self.compose("down --volumes --remove-orphans --timeout 1"));
        }
    }
}

/// How a command ended.
pub(crate) struct Ended {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn expect_code(self, code: i32) -> Self {
        let Self { what, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{what}\n{stdout}\n{stderr}");
        self
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{}: {e}", self.what))
    }
}

/// `docker` with these words, in the folder of compose.yaml.
pub(crate) fn docker(words: &str, environment: &[(&str, &str)]) -> Ended {
    run(&words.split_whitespace().collect::<Vec<_>>(), environment)
}

fn run(words: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new("docker");
    command.args(words).envs(environment.iter().copied());
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    let output = command.output().expect("docker is here: make test-compose");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        what: format!("docker {}", words.join(" ")),
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
