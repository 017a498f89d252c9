//! `cofferdam-standin`: the stand-ins for a person. Runs a model and a Telegram, or talks to a bot as somebody with a phone.
//!
//! ```text
//! cofferdam-standin --bot 1:research:research_bot          then, elsewhere:
//! cofferdam-standin say  --port 8081 --bot 1:research --chat 11111111 hello
//! cofferdam-standin read --port 8081 --bot 1:research --chat 11111111 --follow
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use cofferdam_tests::standin::client::{CallError, call};
use cofferdam_tests::standin::model::ModelServer;
use cofferdam_tests::standin::telegram::TelegramServer;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// How long `read --follow` asks for news at a time, in milliseconds.
const FOLLOW_MS: u64 = 30_000;

/// Plays the outside world for Cofferdam: a model behind Codex, and Telegram.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where the model listens; 0 for any free port
    #[arg(long, default_value_t = 8080)]
    model_port: u16,
    /// Where Telegram listens; 0 for any free port
    #[arg(long, default_value_t = 8081)]
    telegram_port: u16,
    /// A bot to have from the start; the name is what follows the last colon
    #[arg(long = "bot", value_name = "TOKEN:NAME", value_parser = bot)]
    bots: Vec<(String, String)>,
    /// Print no line per request
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Write to a bot as a person
    Say {
        #[command(flatten)]
        place: Place,
        /// What to write
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Show a chat as the person sees it
    Read {
        #[command(flatten)]
        place: Place,
        /// Go on with what happens
        #[arg(long, short)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Where the Telegram stand-in listens
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// The bot's token
    #[arg(long)]
    bot: String,
    /// The chat; for a private one the person's id
    #[arg(long, allow_negative_numbers = true)]
    chat: i64,
}

impl Place {
    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

fn bot(text: &str) -> Result<(String, String), String> {
    // A token holds a colon of its own.
    match text.rsplit_once(':') {
        Some((token, name)) if token.contains(':') && !name.is_empty() => Ok((token.to_owned(), name.to_owned())),
        Some(_) | None => Err("write TOKEN:NAME, where TOKEN is like 123456:secret".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "a command tells its person what went wrong")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.act {
        None => serve(&cli.serve).await.map_err(|error| format!("cannot run the stand-ins: {error}")),
        Some(Act::Say { place, text }) => say(&place, &text.join(" ")).await,
        Some(Act::Read { place, follow }) => read(&place, follow).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "these lines are what the command is for")]
async fn serve(serve: &Serve) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let model = ModelServer::start_on(serve.model_port, !serve.quiet)?;
    println!("model    {}", model.base_url());
    let telegram = TelegramServer::start_on(serve.telegram_port, !serve.quiet)?;
    println!("telegram {}", telegram.url());
    for (token, name) in &serve.bots {
        let bot = telegram.bot(token, name);
        println!("bot      {name} {}", bot.token());
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn say(place: &Place, text: &str) -> Result<(), String> {
    let body = json!({"chat": place.chat, "text": text});
    door(place, "POST", &format!("/bot/{}/say", place.bot), Some(&body)).await.map(drop)
}

#[expect(clippy::print_stdout, reason = "these lines are what the command is for")]
async fn read(place: &Place, follow: bool) -> Result<(), String> {
    let chat = door(place, "GET", &format!("/bot/{}/chat/{}", place.bot, place.chat), None).await?;
    for message in list(&chat["messages"]) {
        let who = if message["from"]["is_bot"] == true { "bot" } else { "you" };
        let words = message["text"].as_str().or(message["caption"].as_str()).unwrap_or("");
        let edited = if message.get("edit_date").is_some() { " (edited)" } else { "" };
        println!("{:>5} {who}{edited}: {words}", message["message_id"].to_string());
    }
    let mut after = list(&chat["events"]).last().and_then(|event| event["seq"].as_u64()).unwrap_or(0);
    if !follow {
        return Ok(());
    }
    loop {
        let path = format!("/bot/{}/chat/{}/next?after={after}&wait_ms={FOLLOW_MS}", place.bot, place.chat);
        for event in list(&door(place, "GET", &path, None).await?) {
            let words = event["text"].as_str().or(event["action"].as_str()).unwrap_or("");
            println!(
                "{:>5} {}: {words}",
                event["message_id"].as_i64().unwrap_or(0),
                event["what"].as_str().unwrap_or("?")
            );
            after = event["seq"].as_u64().unwrap_or(after);
        }
    }
}

async fn door(place: &Place, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
    match call(place.address(), method, &format!("/_standin{path}"), body).await {
        Ok((status, answer)) if (200..300).contains(&status) => Ok(answer),
        Ok((_, answer)) => Err(answer["error"].as_str().unwrap_or("the stand-in refuses").to_owned()),
        Err(error @ CallError::Unreachable { .. }) => Err(format!("{error}; start one with: cofferdam-standin")),
        Err(error @ (CallError::Late | CallError::Garbled)) => Err(error.to_string()),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
