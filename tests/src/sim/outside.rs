//! People: a channel that hands updates over again until they are confirmed, and that may or may not get a post; and
//! callers of the command line.

use super::dice::Dice;
use super::setup::{FRIEND, NAMES, name};
use super::world::{Event, World};
use protocol::control::{Reply, Request, Send, Turns};
use protocol::{Text, TurnId};
use std::collections::{BTreeMap, BTreeSet};
use supervisor::machine::nouns::{CallerId, Chat, ChatMessage, Post, PostId, ReceiptId, Update, UpdateKind};
use supervisor::machine::words::{Delivery, Input};

/// Who asked what, and whether the last answer came.
#[derive(Debug)]
pub(crate) struct Caller {
    asked: String,
    /// An answer from memory came.
    told: bool,
    over: bool,
}

/// What is outside.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Everything that a bot was ever sent; whether its receipt was given.
    pub(crate) channel: Vec<(Update, bool)>,
    callers: BTreeMap<CallerId, Caller>,
    /// Posts on their way, by the life of the supervisor that sends them.
    in_flight: BTreeMap<(u64, PostId), Post>,
    /// Pieces of posts that are there.
    arrived: BTreeMap<(PostId, u32), u32>,
    /// What this supervisor was handed: a bot's updates come in their order.
    handed: BTreeSet<usize>,
    messages: i64,
}

impl Outside {
    /// The supervisor is gone: its callers know.
    pub(crate) fn callers_lost(&mut self) {
        self.callers.values_mut().for_each(|caller| caller.over = true);
        self.handed.clear();
    }

    /// The ledger has answered.
    pub(crate) fn answered(&mut self, caller: CallerId) {
        if let Some(caller) = self.callers.get_mut(&caller) {
            caller.over = true;
        }
    }

    /// In a chat one post is sent at once, and one that may come twice says so.
    pub(crate) fn check_post(&self, life: u64, post: &Post) {
        let same = |((of, _), other): &(&(u64, PostId), &Post)| *of == life && other.to == post.to;
        assert!(!self.in_flight.iter().any(|flying| same(&flying)), "two posts in one chat at once: {post:?}");
        let there = self.arrived.contains_key(&(post.id, post.sent_pieces));
        assert!(!there || post.maybe_repeated, "a post comes twice and does not say so: {post:?}");
    }

    /// What is still awaited.
    pub(crate) fn awaited(&self) -> Option<String> {
        let update = self.channel.iter().find(|(_, confirmed)| !confirmed).map(|(update, _)| format!("{update:?}"));
        let caller = self.callers.iter().find(|(_, caller)| !caller.over);
        update.or_else(|| caller.map(|(id, caller)| format!("{id:?} asked {}", caller.asked)))
    }
}

impl World {
    /// A person writes to a bot.
    pub(crate) fn write(&mut self, bot: &str, user: i64, text: &str) {
        self.outside.messages += 1;
        let to = Chat { bot: bot.into(), chat: user, topic: None };
        let from = ChatMessage { chat: to, message: self.outside.messages, user };
        self.update(bot, UpdateKind::Text { from, private: true, text: text.into() });
    }

    /// A text that no other message holds.
    pub(crate) fn text(&mut self) -> String {
        format!("message {}.", self.number())
    }

    pub(crate) fn update(&mut self, bot: &str, kind: UpdateKind) {
        let external = 500 + i64::try_from(self.outside.channel.len()).expect("few");
        let update = Update { bot: bot.into(), external, kind, raw: "{}".into() };
        self.outside.channel.push((update, false));
        let at = self.outside.channel.len() - 1;
        let pause = self.dice.roll(20);
        self.later(pause, Event::Update(at));
    }

    /// The channel hands an update over, for the first time or again.
    pub(crate) fn hand_over(&mut self, at: usize) {
        let update = self.outside.channel[at].0.clone();
        if self.host.machine.is_none() || !self.host.heard.contains(&update.bot) {
            return;
        }
        let earlier =
            self.outside.channel.iter().take(at).rposition(|(other, confirmed)| other.bot == update.bot && !confirmed);
        if let Some(earlier) = earlier.filter(|earlier| !self.outside.handed.contains(earlier)) {
            self.hand_over(earlier);
            return self.later(0, Event::Update(at));
        }
        self.outside.handed.insert(at);
        let receipt = ReceiptId(self.number());
        self.host.receipts.insert(receipt, at);
        self.give(Input::Update(receipt, Box::new(update)));
    }

    /// A bot is heard: what is not confirmed comes again, in its order.
    pub(crate) fn hear(&mut self, bot: String) {
        let pause = self.dice.roll(50);
        for (at, (update, confirmed)) in self.outside.channel.clone().iter().enumerate() {
            if update.bot == bot && !confirmed {
                self.later(pause, Event::Update(at));
            }
        }
        self.host.heard.insert(bot);
    }

    pub(crate) fn receipt(&mut self, receipt: ReceiptId) {
        let at = self.host.receipts.remove(&receipt).expect("a receipt that is awaited");
        self.outside.channel[at].1 = true;
    }

    /// A post is on its way.
    pub(crate) fn deliver(&mut self, post: Post) {
        let life = self.host.life;
        let pause = 10 + self.dice.roll(150);
        self.later(pause, Event::Delivered(life, post.id));
        self.outside.in_flight.insert((life, post.id), post);
    }

    /// What became of it. The supervisor that sent it may be gone; the message is there all the same.
    pub(crate) fn delivered(&mut self, life: u64, id: PostId) {
        let Some(post) = self.outside.in_flight.remove(&(life, id)) else { return };
        let harm = self.calm.as_ref().is_none_or(|calm| !post.to.bot.starts_with(calm.as_str()));
        let wild = harm && self.may_harm(&name(if post.to.bot == "abot" { "a" } else { "b" }));
        let (delivery, fault) = if wild { outcome(&mut self.dice, id) } else { (sent(id, false), None) };
        if let Some(fault) = fault {
            self.cover.fault(fault);
        }
        let there = match &delivery {
            Delivery::Sent { .. } => true,
            Delivery::Uncertain(_) => self.dice.one_in(2),
            _ => false,
        };
        if there {
            *self.outside.arrived.entry((id, post.sent_pieces)).or_default() += 1;
        }
        if life == self.host.life {
            self.give(Input::Delivered(id, delivery));
        }
    }

    /// A request of the command line.
    pub(crate) fn ask(&mut self, request: Request) {
        if self.host.machine.is_none() {
            return;
        }
        let caller = CallerId(self.number());
        let at_once = matches!(request, Request::Health | Request::Queue(_));
        self.outside.callers.insert(caller, Caller { asked: format!("{request:?}"), told: false, over: false });
        let life = self.host.life;
        self.give(Input::Asked(caller, request));
        let answered = self.host.life != life
            || self.host.is_stopped()
            || self.outside.callers.get(&caller).is_none_or(|caller| caller.told);
        assert!(!at_once || answered, "{caller:?} waits for an answer from memory");
    }

    pub(crate) fn send_console(&mut self, agent: &str, conversation: &str) {
        let text = Text::Inline(self.text());
        let wait = !self.dice.one_in(5);
        self.ask(Request::Send(Send { agent: name(agent), conversation: conversation.into(), text, wait }));
    }

    pub(crate) fn reply(&mut self, caller: CallerId, reply: &Reply) {
        // What is on its way to one that has hung up is not read.
        let Some(caller) = self.outside.callers.get_mut(&caller) else { return };
        assert!(!caller.over, "{caller:?} has its last answer and gets {reply:?}");
        caller.told |= matches!(reply, Reply::Health(_) | Reply::Queue(_) | Reply::Refused(_));
        // The rows of `ps` are completed by the daemon, which says done.
        caller.over = matches!(reply, Reply::Done | Reply::Refused(_) | Reply::Ps(_));
    }

    /// A question that changes nothing.
    pub(crate) fn look(&mut self) {
        let agent = name(self.dice.pick::<&str>(&NAMES));
        let turns = Turns { agent: None, failed: false, most: 5 };
        let asks =
            [Request::Health, Request::Ps, Request::Queue(agent), Request::Turns(turns), Request::Turn(TurnId(1))];
        let request = self.dice.pick(&asks).clone();
        self.ask(request);
    }

    /// A caller hangs up.
    pub(crate) fn hang_up(&mut self) {
        let waiting = self.outside.callers.iter().find(|(_, caller)| !caller.over).map(|(id, _)| *id);
        if let (Some(caller), true) = (waiting, self.host.machine.is_some()) {
            self.outside.callers.remove(&caller);
            self.give(Input::CallerGone(caller));
        }
    }

    /// A person orders in a chat.
    pub(crate) fn order(&mut self, bot: &str) {
        let order = *self.dice.pick::<&str>(&["/stop", "/new", "/retry", "/status", "/help"]);
        self.write(bot, FRIEND, order);
    }
}

fn sent(id: PostId, more: bool) -> Delivery {
    Delivery::Sent { message: Some(10_000 + i64::try_from(id.0).unwrap_or(0)), more }
}

fn outcome(dice: &mut Dice, id: PostId) -> (Delivery, Option<&'static str>) {
    match dice.roll(16) {
        0 => (Delivery::Later(dice.roll(20_000)), Some("Telegram 429")),
        1 => (Delivery::Failed("503".into()), Some("Telegram 5xx")),
        2 => (Delivery::Uncertain("cut".into()), Some("a post nobody knows of")),
        3 => (Delivery::Unformatted("bad".into()), Some("a post that cannot be formatted")),
        4 if dice.one_in(3) => (Delivery::Impossible("blocked".into()), Some("a chat that is gone")),
        5 => (sent(id, true), Some("a post in pieces")),
        _ => (sent(id, false), None),
    }
}
