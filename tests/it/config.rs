//! The configuration through the binary: every error at once, no secret in any of them, no text that breaks it.

use crate::scenes::{Dice, world};
use cofferdam_tests::world::{Ran, World};

const TOKEN: &str = "424242:this-token-must-not-be-printed-aaaaa";

/// What `check` says of a text, with the world's folder as `DIR`.
fn check(world: &World, text: &str) -> Ran {
    world.write_config(text);
    let mut ran = world.cli(&["check"]);
    ran.stderr = ran.stderr.replace(&world.root().display().to_string(), "DIR");
    ran
}

#[test]
fn check_prints_every_error_with_its_place_and_no_token() {
    let world = world().build();
    let bad = format!(
        r#"state_dirr = "s"
max_turns = "many"

[defaults]
model = "standin/gpt-5.5"
turn_timeout = 90

[agents.one]
sandbox = "read-write"
model = "codex-cli/gpt-5.5"
runtime = "codex"
fallbacks = ["nowhere/gpt-5.5"]

[agents."Two!"]

[telegram.bot]
token = "{TOKEN}"
tokn = "{TOKEN}"
agent = "three"
allow = [1, "two"]
"#
    );
    let ran = check(&world, &bad);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(!ran.stderr.contains("this-token"), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stderr);
}

/// A text with one thing changed: a line lost, doubled or cut, a character exchanged, two lines swapped.
fn mutated(text: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=dice.throw(3) {
        let at = usize::try_from(dice.throw(lines.len() as u64)).unwrap();
        match dice.throw(5) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let cut = usize::try_from(dice.throw(lines[at].len() as u64 + 1)).unwrap();
                lines[at] = String::from_utf8_lossy(&lines[at].as_bytes()[..cut]).into_owned();
            }
            3 => {
                let odd = ["\"", "]", "[", "=", "\u{0}", "ü", "9999999999999999999", "{", "'''", "-"];
                let odd = odd[usize::try_from(dice.throw(odd.len() as u64)).unwrap()];
                lines[at].push_str(odd);
            }
            4 => {
                let other = usize::try_from(dice.throw(lines.len() as u64)).unwrap();
                lines.swap(at, other);
            }
            side => panic!("a die with a side {side}"),
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

#[test]
fn no_text_breaks_it_and_none_makes_it_tell_a_token() {
    let world = world().build();
    let whole = format!(
        r#"state_dir = "s"
max_turns = 4
[codex]
command = "codex"
[providers.local]
base_url = "http://127.0.0.1:9/v1"
api_key_env = "LOCAL_KEY"
[defaults]
model = "local/gpt-5.5"
turn_timeout = "90s"
[models."local/gpt-5.5"]
runtime = "codex-cli"
[agents.one]
sandbox = "read-only"
limits = {{ memory_max = "2G", pids_max = 512 }}
fallbacks = ["local/gpt-5.4"]
[agents.one.codex]
model_reasoning_effort = "high"
[telegram.bot]
token = "{TOKEN}"
agent = "one"
owners = [7]
[[jobs]]
name = "digest"
agent = "one"
cron = "0 3 * * *"
prompt = "x"
"#
    );
    let right = check(&world, &whole);
    assert_eq!(right.code, 0, "{right:?}");
    let mut dice = Dice::new();
    let mut wrong = 0;
    for _ in 0..40 {
        let text = mutated(&whole, &mut dice);
        let ran = check(&world, &text);
        assert!(ran.code == 0 || ran.code == 78, "{ran:?}\n{text}");
        assert!(ran.code == 0 || ran.stderr.contains("DIR/cofferdam.toml"), "{ran:?}\n{text}");
        assert!(!ran.stderr.contains("this-token") && !ran.stdout.contains("this-token"), "{ran:?}\n{text}");
        wrong += u32::from(ran.code == 78);
    }
    assert!(wrong > 5, "mutations that break nothing prove nothing: {wrong}");
}
