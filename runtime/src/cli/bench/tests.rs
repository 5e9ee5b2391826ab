//! What the command line takes and what it refuses.

use clap::Parser;
use wharf_protocol::Encoding;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn setup(args: &[&str]) -> Setup {
    Line::try_parse_from([&["bench"], args].concat()).unwrap().args.setup()
}

#[test]
fn every_argument_has_a_default() {
    let setup = setup(&[]);
    assert_eq!((setup.data_type.as_str(), setup.encoding), ("system_metrics", Encoding::Json));
    assert_eq!((setup.agents, setup.connections, setup.rate), (256, 8, None));
    assert!(check(&setup).is_ok());
}

#[test]
fn few_agents_have_few_connections() {
    assert_eq!(setup(&["--agents", "3"]).connections, 3);
    assert_eq!(setup(&["--agents", "1000000"]).connections, 8);
}

#[test]
fn numbers_that_do_not_go_together_are_the_callers_mistake() {
    for (args, named) in [
        (&["--agents", "7", "--connections", "8"][..], "--agents"),
        (&["--batch", "10000", "--size", "1000"], "--batch 10000"),
        (&["--agents", "1000000", "--size", "1000000"], "--agents"),
        (&["--connections", "10000", "--agents", "10000", "--batch", "1000"], "--connections"),
    ] {
        let usage = check(&setup(args)).unwrap_err();
        assert!(usage.0.contains(named), "{usage} does not name {named}");
    }
}

#[test]
fn a_rate_is_a_number_or_all_that_goes() {
    assert_eq!(rate("max"), Ok(Offer::Max));
    assert_eq!(rate("2000"), Ok(Offer::PerSecond(2_000)));
    for text in ["0", "-1", "100000001", "1.5", "all", ""] {
        assert!(rate(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn durations_need_a_unit_and_an_end() {
    assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1_500)));
    for text in ["5", "0s", "2days", "soon", ""] {
        assert!(duration(text).is_err(), "{text:?} was taken");
    }
    assert_eq!(duration_or_none("0s"), Ok(Duration::ZERO));
    assert!(duration_or_none("2days").is_err());
}
