//! The policy's file: what it may be, and what becomes of it when it changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use lanekeeper_engine::policy::LimitVerdict;
use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::policy::{PolicyFile, Reload};
use serde_json::json;

use crate::support::{PATIENT, Shim};

fn policy_of(limit: u32) -> String {
    let windows = format!("[{{limit: {limit}, per: 1h}}]");
    format!(
        "version: 1\nrate_limits:\n  plain: {{keys: {{user: [{{header: x-user}}]}}, windows: {windows}}}\n"
    )
}

fn limit(file: &PolicyFile) -> u32 {
    match &file.policy().lanes[0].limits[0].verdict {
        LimitVerdict::Count(count) => count.windows[0].limit(),
        verdict => panic!("{verdict:?}"),
    }
}

#[test]
fn reads_a_file_again_when_it_has_changed_and_keeps_the_last_good_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, policy_of(1)).unwrap();
    let file = PolicyFile::open(&path).unwrap();
    assert_eq!((limit(&file), file.look()), (1, None));

    fs::write(&path, policy_of(2)).unwrap();
    assert_eq!((file.look(), file.look(), limit(&file)), (Some(Reload::loaded), None, 2));
    for bad in ["version: 2\n", "version: [", "", "\u{0}"] {
        fs::write(&path, bad).unwrap();
        assert_eq!((file.look(), file.look(), limit(&file)), (Some(Reload::refused), None, 2), "{bad:?}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!((file.look(), file.look(), limit(&file)), (Some(Reload::refused), None, 2));
    fs::write(&path, policy_of(3)).unwrap();
    assert_eq!((file.look(), limit(&file)), (Some(Reload::loaded), 3));
}

/// A ConfigMap as Kubernetes mounts it: the file is a link into `..data`, which is a link to a folder with a
/// date in its name. A change is a new folder and one rename, over `..data`.
#[test]
fn follows_the_links_of_a_config_map() {
    let mount = tempfile::tempdir().unwrap();
    let publish = |folder: &str, text: String| {
        fs::create_dir(mount.path().join(folder)).unwrap();
        fs::write(mount.path().join(folder).join("policy.yaml"), text).unwrap();
        symlink(folder, mount.path().join("..data_tmp")).unwrap();
        fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    };
    publish("..2026_01_01", policy_of(1));
    let path = mount.path().join("policy.yaml");
    symlink(Path::new("..data/policy.yaml"), &path).unwrap();
    let file = PolicyFile::open(&path).unwrap();
    publish("..2026_01_02", policy_of(2));
    fs::remove_dir_all(mount.path().join("..2026_01_01")).unwrap();
    assert_eq!((file.look(), limit(&file)), (Some(Reload::loaded), 2));
}

#[test]
fn names_every_error_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        PolicyFile::open(&path).map(|_| ()).map_err(|error| error.to_string())
    };
    let two = "version: 1\nrate_limits:\n  a: {keys: {k: [ip]}, windows: [{limit: 0, per: 1x}]}\n";
    let error = open("policy.yaml", two).unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
    for part in ["policy.yaml: rate_limits.a.windows[0].limit: 0: ", "rate_limits.a.windows[0].per: \"1x\": "]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!(open("twice.yaml", "version: 1\nversion: 1\n").unwrap_err().contains("cannot be read as YAML"));
    assert_eq!(open("policy.json", r#"{"version": 1}"#), Ok(()));
    assert!(open("no.json", "version: 1").unwrap_err().contains("must be JSON"));
    let missing = PolicyFile::open(folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none: cannot be read: "), "{missing}");
}

#[tokio::test]
async fn serves_the_policy_that_holds_now_and_counts_its_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, policy_of(1)).unwrap();
    let file = Arc::new(PolicyFile::open(&path).unwrap());
    file.watch();
    let shim = Shim::start(App::new(MemoryStore::new()).with_policy(file)).await;
    let shown = async || {
        let answer = shim.post_to("/v1/limits/plain/can_allow", &json!({"subjects": {"user": "u"}})).await;
        let answer: serde_json::Value = answer.json().await.unwrap();
        answer["keys"]["user"]["windows"][0]["limit"].clone()
    };
    let counted = async |line: &str| {
        let text = shim.get("/metrics").await.text().await.unwrap();
        text.lines().any(|known| known == format!("lanekeeper_shim_policy_reloads_total{{outcome={line}"))
    };
    let until_counted = async |line: &str| {
        let counted = async {
            while !counted(line).await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENT, counted).await.expect(line);
    };
    assert!(counted("\"loaded\"} 0").await && counted("\"refused\"} 0").await);
    fs::write(&path, "version: 3").unwrap();
    until_counted("\"refused\"} 1").await;
    assert_eq!(shown().await, 1);
    fs::write(&path, policy_of(7)).unwrap();
    until_counted("\"loaded\"} 1").await;
    assert_eq!(shown().await, 7);
}
