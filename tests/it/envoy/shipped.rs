//! The configurations that are shipped.

use lanekeeper_tests::envoy::{Setup, Shipped, Verdict, validate};
use serde_json::Value;

#[test]
fn each_shipped_configuration_holds_the_policy_beside_it() {
    for shipped in Shipped::ALL {
        let envoy = shipped.envoy().unwrap();
        let manager =
            &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        let plugin = &manager["http_filters"][0]["typed_config"]["config"];
        let configured: Value =
            serde_json::from_str(plugin["configuration"]["value"].as_str().unwrap()).unwrap();
        assert_eq!(configured, shipped.policy().unwrap(), "{shipped:?}");
    }
}

#[test]
fn all_shipped_configurations_label_metrics_alike() {
    let labels = Shipped::ALL.map(|shipped| shipped.envoy().unwrap()["stats_config"].clone());
    assert!(labels.iter().all(|of| of.is_object() && *of == labels[0]), "{labels:?}");
}

#[test]
fn each_shipped_configuration_is_valid_and_so_is_what_stands_in_for_a_service() {
    for shipped in Shipped::ALL {
        let setup = Setup::shipped(shipped, ([127, 0, 0, 1], 1).into());
        let setup = if shipped == Shipped::Demo { setup.store(([127, 0, 0, 1], 2).into()) } else { setup };
        for verdict in [setup.validate().unwrap(), validate(&shipped.upstream().unwrap()).unwrap()] {
            assert!(matches!(verdict, Verdict::Accepted), "{shipped:?}: {verdict:?}");
        }
    }
}
