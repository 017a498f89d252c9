-- The ledger, readable with the sqlite3 shell while the supervisor runs. Times are Unix milliseconds.
-- Start with:  SELECT * FROM turn_overview LIMIT 20;

-- "Coff": a file of ours, not of another program.
PRAGMA application_id = 0x436f6666;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO meta (name, value) VALUES ('ledger', random() & 9223372036854775807);

-- The inbox. AUTOINCREMENT, here and below: a number is never given twice, even after its row was pruned.
CREATE TABLE updates (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    bot         TEXT    NOT NULL,
    external    INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    chat        INTEGER,
    topic       INTEGER,
    message     INTEGER,
    user        INTEGER,
    received_at INTEGER NOT NULL,
    outcome     TEXT CHECK (outcome IN ('answered', 'joined', 'refused', 'cancelled', 'failed')),
    why         TEXT,
    joined_turn INTEGER,
    ended_at    INTEGER,
    raw         TEXT    NOT NULL,
    UNIQUE (bot, external),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT;
-- Indexes here and below are partial where they can be: an insert touches a page less for each.
CREATE INDEX updates_by_end ON updates (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE offsets (
    bot  TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT;

CREATE TABLE turns (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    agent        TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    source       TEXT    NOT NULL CHECK (source IN ('console', 'telegram')),
    bot          TEXT,
    chat         INTEGER,
    topic        INTEGER,
    message      INTEGER,
    user         INTEGER,
    update_id    INTEGER REFERENCES updates (id) ON DELETE SET NULL,
    prompt       TEXT    NOT NULL,
    retry_of     INTEGER,
    accepted_at  INTEGER NOT NULL,
    outcome      TEXT CHECK (outcome IN ('completed', 'interrupted', 'failed', 'cancelled', 'joined')),
    class        TEXT,
    why          TEXT,
    joined_turn  INTEGER,
    answer       TEXT,
    ended_at     INTEGER,
    CHECK ((source = 'telegram') = (bot IS NOT NULL AND chat IS NOT NULL)),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT;
CREATE INDEX turns_open ON turns (id) WHERE outcome IS NULL;
CREATE INDEX turns_by_agent ON turns (agent, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX turns_by_update ON turns (update_id) WHERE update_id IS NOT NULL;
CREATE INDEX turns_by_end ON turns (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE attempts (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    turn_id        INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    incarnation    INTEGER NOT NULL,
    runtime        TEXT    NOT NULL CHECK (runtime IN ('codex', 'codex-cli')),
    provider       TEXT    NOT NULL,
    model          TEXT    NOT NULL,
    resumed_thread TEXT,
    begun_at       INTEGER NOT NULL,
    started_at     INTEGER,
    thread         TEXT,
    outcome        TEXT CHECK (outcome IN ('completed', 'interrupted', 'failed')),
    class          TEXT,
    detail         TEXT    NOT NULL DEFAULT '',
    ran            TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(ran)),
    replay_safe    INTEGER NOT NULL DEFAULT 0,
    exit_code      INTEGER,
    signal         INTEGER,
    stderr         TEXT    NOT NULL DEFAULT '',
    resets_at      INTEGER,
    first_event_ms INTEGER,
    duration_ms    INTEGER,
    input_tokens   INTEGER NOT NULL DEFAULT 0,
    output_tokens  INTEGER NOT NULL DEFAULT 0,
    codex_version  TEXT,
    ended_at       INTEGER,
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT;
CREATE INDEX attempts_by_turn ON attempts (turn_id);

-- The outbox.
CREATE TABLE posts (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    turn_id        INTEGER REFERENCES turns (id) ON DELETE CASCADE,
    kind           TEXT    NOT NULL CHECK (kind IN ('final', 'notice', 'alert', 'status', 'remove')),
    bot            TEXT    NOT NULL,
    chat           INTEGER NOT NULL,
    topic          INTEGER,
    reply_to       INTEGER,
    edits          INTEGER,
    body           TEXT    NOT NULL,
    made_at        INTEGER NOT NULL,
    state          TEXT    NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    not_before     INTEGER NOT NULL DEFAULT 0,
    sent_pieces    INTEGER NOT NULL DEFAULT 0,
    tries          INTEGER NOT NULL DEFAULT 0,
    maybe_repeated INTEGER NOT NULL DEFAULT 0,
    plain          INTEGER NOT NULL DEFAULT 0,
    sent_message   INTEGER,
    why            TEXT    NOT NULL DEFAULT '',
    changed_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX posts_waiting ON posts (id) WHERE state = 'waiting';
CREATE INDEX posts_by_turn ON posts (turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX posts_by_change ON posts (changed_at) WHERE turn_id IS NULL AND state <> 'waiting';

CREATE TABLE threads (
    agent        TEXT NOT NULL,
    conversation TEXT NOT NULL,
    thread       TEXT NOT NULL,
    PRIMARY KEY (agent, conversation)
) STRICT;

CREATE TABLE agents (
    agent          TEXT PRIMARY KEY,
    wanted_up      INTEGER NOT NULL DEFAULT 1,
    incarnation    INTEGER NOT NULL DEFAULT 0,
    incarnation_at INTEGER
) STRICT;

-- No reference to turns: an event may tell of a turn that the ledger does not hold.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    agent   TEXT,
    turn_id INTEGER,
    what    TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_turn ON events (turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX events_by_time ON events (at);

-- What a turn does or did, as every listing says it.
CREATE VIEW turn_state AS
SELECT turns.id AS turn,
       CASE
           WHEN turns.outcome IS NOT NULL THEN turns.outcome
           WHEN EXISTS (SELECT 1 FROM attempts WHERE attempts.turn_id = turns.id AND attempts.outcome IS NULL)
               THEN 'running'
           WHEN EXISTS (SELECT 1 FROM attempts WHERE attempts.turn_id = turns.id) THEN 'waiting'
           ELSE 'queued'
       END AS state,
       (SELECT count(*) FROM attempts WHERE attempts.turn_id = turns.id) AS attempts
FROM turns;

-- For people.
CREATE VIEW turn_overview AS
SELECT turns.id AS turn,
       turns.agent,
       turns.conversation,
       turn_state.state,
       turns.class,
       datetime(turns.accepted_at / 1000, 'unixepoch') AS accepted_utc,
       round((turns.ended_at - turns.accepted_at) / 1000.0, 1) AS took_s,
       turn_state.attempts,
       substr(replace(turns.prompt, char(10), ' '), 1, 60) AS asked,
       substr(replace(turns.answer, char(10), ' '), 1, 60) AS answered
FROM turns JOIN turn_state ON turn_state.turn = turns.id
ORDER BY turns.id DESC;
