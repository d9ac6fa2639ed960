//! Files, directories and ConfigMap mounts: all or nothing, in a fixed order.
use std::{fs, os::unix::fs::symlink, path::Path};

use plainroute_config::{Input, load, load_inputs};
use proptest::prelude::*;
use tempfile::TempDir;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {name} }}\n")
}

fn keys(path: &Path) -> Vec<String> {
    let loaded = load(&[path]).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.objects.iter().map(|located| located.object.key().to_string()).collect()
}

#[test]
fn a_directory_is_read_in_order_and_not_below() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("b.yaml"), namespace("b")).unwrap();
    fs::write(dir.path().join("a.yml"), namespace("a")).unwrap();
    fs::write(dir.path().join(".a.yaml.swp.yaml"), "hidden: [").unwrap();
    fs::write(dir.path().join("README.md"), "no YAML").unwrap();
    fs::create_dir(dir.path().join("c.yaml")).unwrap();
    fs::write(dir.path().join("c.yaml/c.yaml"), namespace("c")).unwrap();
    assert_eq!(keys(dir.path()), ["Namespace/a", "Namespace/b"]);
}

#[test]
fn a_config_map_mount_is_read_once() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("..2026_11_22")).unwrap();
    fs::write(dir.path().join("..2026_11_22/a.yaml"), namespace("a")).unwrap();
    symlink("..2026_11_22", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    assert_eq!(keys(dir.path()), ["Namespace/a"]);
}

#[test]
fn what_is_not_there_is_an_error() {
    let dir = TempDir::new().unwrap();
    let error = |path: &Path| load(&[path]).unwrap_err().to_string();
    assert!(error(dir.path()).ends_with("the directory has no *.yaml or *.yml file"));
    assert!(error(&dir.path().join("gone.yaml")).contains("No such file"));
    symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
    assert!(error(dir.path()).contains("dangling.yaml: No such file"));
}

#[test]
fn one_bad_file_refuses_all_and_every_file_is_told() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), namespace("a")).unwrap();
    fs::write(dir.path().join("b.yaml"), namespace("B")).unwrap();
    fs::write(dir.path().join("c.yaml"), format!("{}---\n{}", namespace("c"), namespace("a"))).unwrap();
    let errors = load(&[dir.path()]).unwrap_err();
    let told: Vec<_> = errors.iter().map(|e| (e.file.rsplit('/').next().unwrap(), e.line.unwrap())).collect();
    assert_eq!(told, [("b.yaml", 3), ("c.yaml", 7)]);
    assert!(errors.iter().last().unwrap().message.ends_with("a.yaml:1"), "{errors}");
    assert!(errors.summary().ends_with("(and 1 more)"));
}

#[test]
fn errors_have_a_form_for_programs() {
    let errors = load_inputs(&[Input::Stdin(b"kind: Pod\n".to_vec())]).unwrap_err();
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "file": "<stdin>", "line": 1, "column": 1, "field": "apiVersion",
            "message": "is missing; that of Pod is v1",
        }])
    );
}

#[test]
fn a_huge_file_is_refused_before_it_is_parsed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("huge.yaml");
    fs::File::create(&path).unwrap().set_len(33 * 1024 * 1024).unwrap();
    assert!(load(&[&path]).unwrap_err().to_string().contains("larger than 32 MiB"));
}

#[test]
fn a_thousand_pods_load() {
    let pod = |n: u32| {
        let (high, low) = (n / 256, n % 256);
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: p{n}, namespace: erp }}\nspec: {{ nodeName: a }}\n\
             status: {{ phase: Running, podIP: 10.0.{high}.{low} }}\n"
        )
    };
    let text: String = (0..1000).map(pod).collect();
    let loaded = load_inputs(&[Input::Stdin(text.into_bytes())]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.objects.len(), 1000);
    assert_eq!(loaded.objects[999].origin.line, 999 * 6 + 2);
}

#[test]
fn an_error_under_an_anchor_is_told_where_it_is_written() {
    let text = "x-timers: &t { holdTimeSeconds: 2 }\n";
    let peer = "apiVersion: plainroute.dev/v1alpha1\nkind: BGPPeer\nmetadata: { name: a }\n\
                spec:\n  localASN: 1\n  peerASN: 2\n  peerAddress: 192.0.2.1\n  timers: *t\n";
    let errors = load_inputs(&[Input::Stdin(format!("{text}{peer}").into_bytes())]).unwrap_err();
    let told: Vec<_> = errors.iter().map(|e| (e.line, e.field.as_deref())).collect();
    assert_eq!(told, [(Some(1), Some("x-timers")), (Some(1), Some("spec.timers.holdTimeSeconds"))]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a slip of the hand makes of a sound config, it is accepted or refused with a place inside the file.
    #[test]
    fn a_damaged_config_is_judged_and_never_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, "[ -~\\n\\té…]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = fs::read_to_string("tests/good/contract.yaml").unwrap().chars().collect();
        for (at, removed, inserted) in damage {
            let at = at.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = load_inputs(&[Input::Stdin(text.clone().into_bytes())]) {
            let lines = text.lines().count() as u64 + 1;
            for error in &errors {
                prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}\n{text}");
                prop_assert!(!error.message.is_empty() && !errors.to_string().is_empty());
            }
        }
    }
}
