//! The operator's guide says what each metric is for: one that is not in it helps nobody at three in the morning.

const GUIDE: &str = include_str!("../docs/operating.md");

#[test]
fn every_alert_is_in_the_operators_guide() {
    let rules = include_str!("../deploy/prometheus-rules.yaml");
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 5, "the rules are no longer understood: {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !GUIDE.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
}

/// The cells of a table's first column that are code, such as `hang` in `` | `hang` | … ``.
fn listed(document: &str) -> String {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn everything_the_simulated_gateway_can_be_told_is_in_its_document() {
    let listed = listed(include_str!("../docs/simulator.md"));
    let control = include_str!("../simulator/src/control.rs");
    let routes: Vec<(&str, String)> = control
        .split(".route(\"")
        .skip(1)
        .filter_map(|route| {
            let (path, rest) = route.split_once("\", web::")?;
            Some((path, rest.split('(').next()?.to_uppercase()))
        })
        .collect();
    assert!(routes.len() >= 9, "the source is no longer understood: {routes:?}");
    for (path, method) in routes {
        assert!(listed.contains(&format!("`{method} {path}`")), "{method} {path}");
    }
    for action in concertpos_simulator::ACTIONS.split(", ") {
        let name = action.split(['=', '[']).next().unwrap_or_default();
        assert!(listed.contains(&format!("`{name}`")) || listed.contains(&format!("`{name}=")), "{action}");
    }
}
