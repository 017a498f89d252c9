//! Where the configuration lies, and what a path in it means. Sees the world only through [`Environment`].

use super::model::Secret;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The part of the world that a configuration may ask.
#[derive(Clone, Default)]
pub struct Environment {
    /// Variables with a text as value.
    pub vars: BTreeMap<String, String>,
    /// What `~` means.
    pub home: Option<PathBuf>,
    /// What a relative `--config` is relative to.
    pub current_dir: PathBuf,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let vars: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let named = vars.get("HOME").filter(|h| h.starts_with('/')).map(PathBuf::from);
        let home = named.or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|u| u.dir));
        Self { vars, home, current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")) }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The operator's own login, which Codex keeps in its home.
    pub fn shared_login(&self) -> PathBuf {
        let home = self.home.as_deref().unwrap_or(Path::new("/"));
        self.var("CODEX_HOME").map_or_else(|| home.join(".codex"), Into::into).join("auth.json")
    }

    /// A variable that nobody may show.
    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.var(name).map(|value| Secret::new(value.trim().to_owned()))
    }

    /// `text` as an absolute path: `~` is the home, and what is relative is relative to `dir`.
    pub(super) fn expand(&self, text: &str, dir: &Path) -> Result<PathBuf, BadPath> {
        if text.is_empty() {
            return Err(BadPath::Empty);
        }
        let home = || self.home.as_deref().ok_or(BadPath::NoHome);
        let path = match text.strip_prefix('~') {
            Some("") => home()?.to_owned(),
            Some(rest) => home()?.join(rest.strip_prefix('/').ok_or(BadPath::OtherHome)?.trim_start_matches('/')),
            None => dir.join(text),
        };
        Ok(tidy(&path))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables hold tokens and keys.
        f.debug_struct("Environment").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPath {
    #[error("the path is empty")]
    Empty,
    #[error("`~` cannot be expanded, for neither HOME nor the user's entry says where it is")]
    NoHome,
    #[error("`~` means the own home: write the path of another user's in full")]
    OtherHome,
}

/// `path` without `.` and doubled slashes. `..` stays: what it means depends on links.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

/// No configuration was named and none was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no configuration: {}; `cofferdam init` writes one, `--config PATH` names another", told(.searched))]
pub struct NoConfig {
    /// The places that were searched, in order.
    pub searched: Vec<PathBuf>,
}

fn told(searched: &[PathBuf]) -> String {
    let places: Vec<String> = searched.iter().map(|p| p.display().to_string()).collect();
    format!("neither --config nor $COFFERDAM_CONFIG is given, and nothing is at {}", places.join(" or "))
}

/// Where a configuration lies by itself, first place first.
pub fn places(env: &Environment) -> Vec<PathBuf> {
    let own = env.home.as_deref().map(|home| home.join(".config/cofferdam/cofferdam.toml"));
    own.into_iter().chain([PathBuf::from("/etc/cofferdam/cofferdam.toml")]).collect()
}

/// The file to load: `flag`, else `$COFFERDAM_CONFIG`, else the first of [`places`] that `exists`. A file that was
/// named is taken even if it does not exist: to load another one instead would surprise.
pub fn find(flag: Option<&Path>, env: &Environment, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, NoConfig> {
    if let Some(path) = flag {
        return Ok(tidy(&env.current_dir.join(path)));
    }
    if let Some(text) = env.var("COFFERDAM_CONFIG") {
        return Ok(env.expand(text, &env.current_dir).unwrap_or_else(|_| PathBuf::from(text)));
    }
    let searched = places(env);
    searched.iter().find(|path| exists(path)).cloned().ok_or(NoConfig { searched })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment { vars: BTreeMap::new(), home: Some("/home/u".into()), current_dir: "/srv".into() }
    }

    #[test]
    fn places_are_tried_in_order() {
        let mut env = env();
        let own = PathBuf::from("/home/u/.config/cofferdam/cofferdam.toml");
        let host = PathBuf::from("/etc/cofferdam/cofferdam.toml");
        assert_eq!(find(None, &env, |_| true), Ok(own.clone()));
        assert_eq!(find(None, &env, |p| p == host), Ok(host.clone()));
        let lost = find(None, &env, |_| false).unwrap_err();
        assert!(lost.to_string().contains(own.to_str().unwrap()) && lost.to_string().contains(host.to_str().unwrap()));
        env.vars.insert("COFFERDAM_CONFIG".into(), "~/c.toml".into());
        assert_eq!(find(None, &env, |_| false), Ok("/home/u/c.toml".into()));
        assert_eq!(find(Some(Path::new("x/./c.toml")), &env, |_| false), Ok("/srv/x/c.toml".into()));
        env.vars.insert("COFFERDAM_CONFIG".into(), String::new());
        assert_eq!(find(None, &env, |_| true), Ok(own));
    }

    #[test]
    fn paths_are_expanded() {
        let env = env();
        let dir = Path::new("/etc/c");
        for (text, want) in [
            ("a/b", Ok("/etc/c/a/b")),
            ("./a//b/", Ok("/etc/c/a/b")),
            ("/x", Ok("/x")),
            ("~", Ok("/home/u")),
            ("~/x", Ok("/home/u/x")),
            ("~//x", Ok("/home/u/x")),
            ("~root/x", Err(BadPath::OtherHome)),
            ("", Err(BadPath::Empty)),
        ] {
            assert_eq!(env.expand(text, dir), want.map(PathBuf::from), "{text:?}");
        }
        assert_eq!(Environment::default().expand("~/x", dir), Err(BadPath::NoHome));
    }

    #[test]
    fn an_environment_does_not_tell() {
        let mut env = env();
        env.vars.insert("T".into(), "hush".into());
        assert!(!format!("{env:?}").contains("hush"));
    }
}
