use super::super::clock::Connection;
use super::*;

const TIMEOUT: Duration = Duration::from_secs(7);

fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

fn seen(connection: &Connection, now: Instant) -> Seen {
    Seen { clock: connection.clock().clone(), at: connection.clock().shows(now) }
}

/// What is to be told of all agents after a sweep.
fn sweep(table: &Table, now: Instant, held: bool) -> Vec<(String, TopicIndex)> {
    let due = LaneSet::ALL.iter().flat_map(|lane| table.sweep(lane, now, TIMEOUT, held));
    let mut due: Vec<_> = due.map(|due| (due.agent.as_str().to_owned(), due.topic)).collect();
    due.sort();
    due
}

fn tell_all(table: &Table, id: &AgentId) {
    for due in table.due(id) {
        table.tell(id, due.topic).unwrap();
        table.told(id, due.topic, true);
    }
}

#[test]
fn a_topic_is_told_with_the_first_message() {
    let table = Table::new(10, Numbers::default());
    let (now, a) = (Instant::now(), agent("a"));
    let connection = Connection::new(now);
    let message = |topic| table.touch(&a, &seen(&connection, now), Some(topic));
    assert_eq!(message(0), Touched { tell: true, came_back: false });
    assert_eq!(message(0), Touched::default());
    assert_eq!(message(1), Touched { tell: true, came_back: false });
    table.leave(&a);
    assert_eq!(table.due(&a).len(), 2);
    assert_eq!(message(1), Touched::default(), "it came back before anything was told");
    assert_eq!(table.due(&a), []);
    table.leave(&a);
    tell_all(&table, &a);
    assert_eq!(message(1), Touched { tell: true, came_back: true });
    assert_eq!(table.due(&a), [Due { topic: 0, agent: a.clone() }]);
}

#[test]
fn an_agent_expires_once_its_connection_was_read_for_the_time_out() {
    let numbers = Numbers::default();
    let table = Table::new(10, numbers.clone());
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let (quiet, unread) = (Connection::new(start), Connection::new(start));
    quiet.reading(start);
    for (id, connection) in [("quiet", &quiet), ("unread", &unread)] {
        table.touch(&agent(id), &seen(connection, start), Some(0));
    }
    assert_eq!(sweep(&table, at(6), false), []);
    assert_eq!(sweep(&table, at(7), true), [], "nobody expires after a standstill");
    assert_eq!(sweep(&table, at(7), false), [("quiet".to_owned(), 0)]);
    assert_eq!(sweep(&table, at(8), false), [("quiet".to_owned(), 0)], "until it is told");
    tell_all(&table, &agent("quiet"));
    assert_eq!(sweep(&table, at(1000), false), []);
    // It is read for six seconds, then not, then for one more.
    unread.reading(at(1000));
    unread.busy(at(1006));
    assert_eq!(sweep(&table, at(2000), false), []);
    unread.reading(at(2000));
    assert_eq!(sweep(&table, at(2000), false), []);
    assert_eq!(sweep(&table, at(2001), false), [("unread".to_owned(), 0)]);
    assert_eq!((numbers.active.get(), numbers.known.get(), numbers.changes.get()), (0, 2, 4));
}

#[test]
fn the_connection_that_was_used_last_counts() {
    let table = Table::new(10, Numbers::default());
    let start = Instant::now();
    let (first, second) = (Connection::new(start), Connection::new(start));
    first.reading(start);
    let a = agent("a");
    table.touch(&a, &seen(&first, start), Some(0));
    table.touch(&a, &seen(&second, start), Some(0));
    assert_eq!(sweep(&table, start + 9 * TIMEOUT, false), [], "the second connection is not read");
    second.reading(start);
    assert_eq!(sweep(&table, start + TIMEOUT, false).len(), 1);
}

#[test]
fn what_was_not_stored_is_due_again() {
    let table = Table::new(10, Numbers::default());
    let now = Instant::now();
    let (connection, a) = (Connection::new(now), agent("a"));
    assert!(table.touch(&a, &seen(&connection, now), Some(0)).tell);
    table.told(&a, 0, false);
    assert_eq!(table.due(&a), [Due { topic: 0, agent: a.clone() }]);
    assert_eq!(table.tell(&a, 0), Some(true));
    assert_eq!(table.tell(&a, 0), None);
    assert_eq!(table.tell(&a, 1), None, "a topic that it never used");
}

#[test]
fn the_agent_that_was_idle_the_longest_makes_room() {
    let numbers = Numbers::default();
    let table = Table::new(2, numbers.clone());
    let now = Instant::now();
    let connection = Connection::new(now);
    let message = |id: &str| table.touch(&agent(id), &seen(&connection, now), Some(0)).tell;
    assert!(message("a") && message("b"));
    assert!(!message("c"), "all are active");
    assert_eq!(numbers.untracked.get(), 1);

    table.leave(&agent("b"));
    assert!(!message("c"), "b is not told yet");
    tell_all(&table, &agent("b"));
    table.leave(&agent("a"));
    tell_all(&table, &agent("a"));
    LaneSet::ALL.iter().for_each(|lane| drop(table.take_unsaved(lane)));
    assert!(message("c"));
    assert!(!message("a") || numbers.untracked.get() == 2, "a is still known");
    let unsaved: Vec<Snapshot> = LaneSet::ALL.iter().flat_map(|lane| table.take_unsaved(lane)).collect();
    assert!(unsaved.contains(&Snapshot { agent: agent("b"), known: None }), "{unsaved:?}");
    assert_eq!((numbers.known.get(), numbers.active.get()), (2, 2));
}

#[test]
fn agents_of_an_earlier_run_beyond_the_bound_are_forgotten_once_they_are_told() {
    let numbers = Numbers::default();
    let table = Table::new(1, numbers.clone());
    let now = Instant::now();
    let connection = Connection::new(now);
    connection.reading(now);
    for id in ["a", "b", "c"] {
        table.restore(&agent(id), &seen(&connection, now), true, vec![(0, Some(true))]);
    }
    assert_eq!((numbers.known.get(), numbers.active.get()), (3, 3));
    assert!(!table.touch(&agent("d"), &seen(&connection, now), Some(0)).tell, "there is no room for more");
    assert_eq!(sweep(&table, now + TIMEOUT, false).len(), 3, "none is forgotten before it is told");
    ["a", "b", "c"].iter().for_each(|id| tell_all(&table, &agent(id)));
    assert_eq!(sweep(&table, now + TIMEOUT, false), []);
    assert_eq!((numbers.known.get(), numbers.active.get()), (1, 0));
}

#[test]
fn what_is_on_its_way_is_saved_as_unknown() {
    let table = Table::new(10, Numbers::default());
    let now = Instant::now();
    let (connection, a) = (Connection::new(now), agent("a"));
    let lane = Lane::of("a");
    let unsaved = || table.take_unsaved(lane).into_iter().map(|snapshot| snapshot.known).collect::<Vec<_>>();
    table.touch(&a, &seen(&connection, now), Some(3));
    assert_eq!(unsaved(), [Some((true, vec![(3, None)]))]);
    assert_eq!(unsaved(), []);
    table.told(&a, 3, true);
    assert_eq!(unsaved(), [Some((true, vec![(3, Some(true))]))]);
    table.put_back([a.clone()]);
    assert_eq!(unsaved().len(), 1);
    table.touch(&a, &seen(&connection, now), Some(3));
    assert_eq!(unsaved(), [], "a message changes nothing that is saved");
}
