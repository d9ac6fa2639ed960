//! docs/reference/commands.md, made of the command line's own help and of the doc comments of what is answered; what
//! real answers serialize to must have exactly the keys that it lists.
//! `UPDATE=1 cargo test -p plainroute-agent --test reference` writes it anew.
mod answers;
mod common;
#[path = "reference/shapes.rs"]
mod shapes;

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path, process::Command};

use clap::CommandFactory;
use plainroute_agent::{
    bfd::protocol::{BfdPath, BfdView},
    cli::Cli,
};
use serde_json::{Value, json};
use shapes::{Shapes, Variant};

const HEAD: &str = "\
<!-- Generated from the help texts in agent/src/cli and the doc comments of what is answered: change those, then run
     `UPDATE=1 cargo test -p plainroute-agent --test reference`. -->

# Commands

One binary, `plainroute`. Its commands ask the agent of this node over the agent's admin socket, so they need the rights
to open it (root's, mode 0600); only `bfd`, `plan --config`, `config check`, `crds`, `replay` and `completions` need no
agent. A command may be shortened as long as it stays clear: `plainroute ex 10.20.0.10`.

| exit code | meaning |
|---|---|
| 0 | all is well |
| 1 | what was asked about is not healthy: see each command |
| 2 | wrong usage, or no agent that answers |

`-o json` and `-o yaml` give the whole answer for programs, in the shapes below, which only grow. A field marked with
`?` is absent where there is nothing to say. Times are RFC 3339 in UTC.
";

/// Which shape each command answers in.
const ANSWERS: [(&str, &str); 18] = [
    ("plainroute peers", "a list of [PeerView](#peerview)"),
    (
        "plainroute routes",
        "a list of [RouteView](#routeview); of `kernel`, a list of [KernelRouteView](#kernelrouteview)",
    ),
    ("plainroute pods", "a list of [PodView](#podview)"),
    ("plainroute pools", "a list of [PoolPlan](#poolplan)"),
    ("plainroute pools check", "one [PoolsCheck](#poolscheck)"),
    ("plainroute egress", "a list of [EgressView](#egressview)"),
    ("plainroute who", "one [Who](#who)"),
    ("plainroute ledger export", "JSON: one [Row](#row) a line"),
    ("plainroute ledger verify", "one [LedgerVerdict](#ledgerverdict)"),
    ("plainroute explain", "one [Explanation](#explanation)"),
    ("plainroute plan", "one [Plan](#plan)"),
    ("plainroute check", "one [Health](#health)"),
    ("plainroute held", "a list of [HeldView](#heldview)"),
    ("plainroute drain", "one [DrainView](#drainview)"),
    ("plainroute config check", "one [Verdict](#verdict)"),
    ("plainroute crds", "YAML; see [CustomResourceDefinitions](crds.md)"),
    ("plainroute replay", "text, or JSON: one object a line, the last one says how it ended"),
    ("plainroute completions", "text"),
];

/// The shapes in the order of the reference: those that a command answers in, each followed by its parts.
const SHAPES: [&str; 31] = [
    "PeerView",
    "RangeView",
    "NegotiatedView",
    "NegotiatedRestartView",
    "Md5FailuresView",
    "AuthenticationView",
    "TcpAoFailuresView",
    "BfdView",
    "BfdPath",
    "FamilyView",
    "RouteView",
    "KernelRouteView",
    "PodView",
    "Delivery",
    "InterfaceSource",
    "PoolPlan",
    "PoolUsage",
    "Allocation",
    "Explanation",
    "AddressExplanation",
    "Step",
    "Plan",
    "PeerPlan",
    "Remote",
    "FoundBy",
    "BlockPlan",
    "PodPlan",
    "AddressPlan",
    "RouteAttributes",
    "Reason",
    "Condition",
];
const MORE_SHAPES: [&str; 28] = [
    "PoolsCheck",
    "Disagreement",
    "Against",
    "EgressView",
    "EgressPlan",
    "EgressAddressPlan",
    "Gateway",
    "EgressSource",
    "EgressReason",
    "EgressMode",
    "FailurePolicy",
    "Who",
    "HolderView",
    "HolderSource",
    "BlockSays",
    "Row",
    "LedgerEvent",
    "LedgerVerdict",
    "Damage",
    "Health",
    "StationView",
    "HeldView",
    "HeldReason",
    "DrainView",
    "DrainState",
    "AskedBy",
    "Verdict",
    "ConfigError",
];

fn shapes() -> Shapes {
    Shapes::read(&[
        include_str!("../src/admin/view.rs"),
        include_str!("../src/bfd/protocol.rs"),
        include_str!("../src/drain.rs"),
        include_str!("../src/index/hold.rs"),
        include_str!("../src/ipam/check.rs"),
        include_str!("../src/ledger/view.rs"),
        include_str!("../src/plan/mod.rs"),
        include_str!("../src/admin/egress.rs"),
        include_str!("../src/plan/egress/mod.rs"),
        include_str!("../src/plan/egress/rank.rs"),
        include_str!("../src/plan/egress/source.rs"),
        include_str!("../src/plan/egress/reason.rs"),
        include_str!("../src/plan/peer.rs"),
        include_str!("../src/plan/pool.rs"),
        include_str!("../src/plan/pod.rs"),
        include_str!("../src/plan/block.rs"),
        include_str!("../src/plan/advertisement.rs"),
        include_str!("../src/plan/reason.rs"),
        include_str!("../src/plan/condition.rs"),
        include_str!("../src/cli/config.rs"),
        include_str!("../../config/src/loader/error.rs"),
        include_str!("../../config/src/kinds/egress.rs"),
        include_str!("../../config/src/kinds/ip_pool.rs"),
    ])
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    let mut command = Cli::command();
    command.build();
    commands(&mut text, &mut command);
    text.push_str("\n# Answers\n");
    let shapes = shapes();
    for name in SHAPES.into_iter().chain(MORE_SHAPES) {
        answer(&mut text, &shapes, name);
    }
    text
}

fn commands(text: &mut String, command: &mut clap::Command) {
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        if command.has_subcommands() {
            commands(text, command);
            continue;
        }
        let usage = command.render_usage().to_string().replace("Usage: ", "");
        let name = command.get_bin_name().unwrap_or_default().to_owned();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(text, "\n## {name}\n\n{about}.\n\n```\n{usage}\n```\n");
        text.push_str("\n| argument | default | meaning |\n|---|---|---|\n");
        let shown = |argument: &&clap::Arg| !argument.is_hide_set() && argument.get_id() != "help";
        for argument in command.get_arguments().filter(shown) {
            self::argument(text, argument);
        }
        if let Some((_, answer)) = ANSWERS.iter().find(|(command, _)| *command == name) {
            let _ = writeln!(text, "\nAnswers with {answer}.");
        }
    }
}

fn argument(text: &mut String, argument: &clap::Arg) {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
    let names = argument.get_short().map(|short| format!("-{short}")).into_iter();
    let names: Vec<String> = names.chain(argument.get_long().map(|long| format!("--{long}"))).collect();
    let form = if names.is_empty() { value } else { format!("{} {value}", names.join(", ")) };
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    assert!(!meaning.is_empty(), "{form} has no help");
    for word in argument.get_possible_values() {
        let help = word.get_help().map(|help| format!(": {help}")).unwrap_or_default();
        let _ = write!(meaning, "<br>`{}`{help}", word.get_name());
    }
    if let Some(name) = argument.get_env() {
        let _ = write!(meaning, "<br>Environment: `{}`", name.to_string_lossy());
    }
    let default = argument.get_default_values().first().map(|value| format!("`{}`", value.to_string_lossy()));
    let default =
        default.unwrap_or_else(|| if argument.is_required_set() { "required" } else { "" }.to_owned());
    let _ = writeln!(text, "| `{form}` | {default} | {meaning} |");
}

fn answer(text: &mut String, shapes: &Shapes, name: &str) {
    let shape = shapes.shape(name);
    let _ = write!(text, "\n## {name}\n\n{}\n", shape.meaning);
    if let Some(tag) = &shape.tag {
        let _ = write!(text, "\n`{tag}` says which, and so which fields there are.\n");
    }
    if !shape.fields.is_empty() {
        text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    }
    for field in &shape.fields {
        let optional = if field.optional { "?" } else { "" };
        let or_null = if field.r#type.starts_with("Option<") && !field.optional { " or null" } else { "" };
        let r#type = shapes.say(&field.r#type) + or_null;
        let _ = writeln!(text, "| `{}`{optional} | {} | {} |", field.key, r#type, field.meaning);
    }
    if !shape.variants.is_empty() {
        text.push_str("\n| word | meaning |\n|---|---|\n");
    }
    for Variant { word, meaning, fields } in &shape.variants {
        let fields = fields
            .iter()
            .map(|field| format!("<br>`{}` ({}): {}", field.key, shapes.say(&field.r#type), field.meaning));
        let _ = writeln!(text, "| `{word}` | {meaning}{} |", fields.collect::<String>());
    }
}

#[test]
fn the_reference_says_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/commands.md");
    let reference = reference();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &reference).expect("the reference is written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/reference/commands.md is stale; run UPDATE=1 cargo test -p plainroute-agent --test reference"
    );
}

/// What `config check -o json` says of good files and of bad ones.
fn verdicts() -> Vec<Value> {
    ["config/tests/good", "config/tests/bad"]
        .into_iter()
        .map(|folder| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_plainroute"));
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            command.current_dir(root).args(["config", "check", "-o", "json", folder]);
            serde_json::from_slice(&command.output().expect("plainroute runs").stdout).expect("JSON")
        })
        .collect()
}

#[test]
fn answers_have_exactly_the_fields_that_the_reference_lists() {
    let shapes = shapes();
    let mut seen = BTreeSet::new();
    let mut agree = |r#type: &str, value: Value| shapes.agree(r#type, &value, &mut seen);
    agree("Vec<PeerView>", json!(answers::peers()));
    agree("Vec<RouteView>", json!(answers::advertised()));
    agree("Vec<RouteView>", json!(answers::received()));
    agree("Vec<KernelRouteView>", json!(answers::kernel()));
    agree("Vec<PodView>", json!(answers::pods()));
    agree("Explanation", json!(answers::explanation()));
    agree("Vec<EgressView>", json!(answers::egresses()));
    agree("Health", json!(answers::sick()));
    for path in [BfdPath::Unknown, BfdPath::AdminDown] {
        agree("BfdView", json!(BfdView { path, ..BfdView::default() }));
    }
    for view in answers::held() {
        agree("HeldView", json!(view));
    }
    for view in answers::drains() {
        agree("DrainView", json!(view));
    }
    agree("Who", json!(answers::who()));
    agree("PoolsCheck", json!(answers::pools_check()));
    agree("Vec<Row>", json!(answers::ledger_rows()));
    agree("LedgerVerdict", json!(answers::damaged_ledger()));
    for folder in common::scenarios() {
        agree("Plan", json!(common::plan_of(&folder)));
    }
    for verdict in verdicts() {
        agree("Verdict", verdict);
    }
    let listed: BTreeSet<String> =
        SHAPES.into_iter().chain(MORE_SHAPES).flat_map(|name| shapes.shape(name).names(name)).collect();
    let unseen: Vec<_> = listed.difference(&seen).collect();
    assert!(unseen.is_empty(), "no answer had {unseen:?}");
    let unlisted: Vec<_> = seen.difference(&listed).collect();
    assert!(unlisted.is_empty(), "the reference does not list {unlisted:?}");
}
