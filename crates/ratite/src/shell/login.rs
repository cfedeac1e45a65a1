//! Who logs in, and what the guest asks for and answers.

use std::fmt;

use crate::pattern::Pattern;
use crate::shell::seen::says;

/// Who logs in at a guest's console: for [`crate::Shell::login`].
///
/// What the guest asks is known by patterns, which are looked for in its plain text, line by line. They fit the common
/// systems; each can be replaced.
///
/// ```
/// let login = ratite::Login::new("root").password("secret");
/// assert!(!format!("{login:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct Login {
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) prompts: Prompts,
}

/// What a guest says when it wants something.
#[derive(Debug, Clone)]
pub(super) struct Prompts {
    login: Pattern,
    password: Pattern,
    refusal: Pattern,
    shell: Pattern,
}

impl Login {
    /// This user, who needs no password.
    pub fn new(user: impl Into<String>) -> Self {
        Self { user: user.into(), password: None, prompts: Prompts::common() }
    }

    /// What is typed if the guest asks for a password. It is in no error and no `Debug` of ratite, and in the console's record
    /// only if the guest echoes it.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The end of the line on which the guest asks who logs in; `login: ?$` by default.
    #[must_use]
    pub fn login_prompt(mut self, pattern: impl Into<Pattern>) -> Self {
        self.prompts.login = pattern.into();
        self
    }

    /// The end of the line on which it asks for the password; `(?i)(password|passphrase).{0,40}: ?$` by default.
    #[must_use]
    pub fn password_prompt(mut self, pattern: impl Into<Pattern>) -> Self {
        self.prompts.password = pattern.into();
        self
    }

    /// A line that says that the login is refused, such as `Login incorrect`. When the guest asks again who logs in, that counts
    /// as a refusal too.
    #[must_use]
    pub fn refusal(mut self, pattern: impl Into<Pattern>) -> Self {
        self.prompts.refusal = pattern.into();
        self
    }

    /// The end of the line on which the shell waits for a command; `[$#%>] ?$` by default. A shell that ends its prompt
    /// otherwise is found too, but later.
    #[must_use]
    pub fn shell_prompt(mut self, pattern: impl Into<Pattern>) -> Self {
        self.prompts.shell = pattern.into();
        self
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "hidden");
        f.debug_struct("Login").field("user", &self.user).field("password", &password).finish_non_exhaustive()
    }
}

impl Prompts {
    /// Those of the common systems.
    pub(super) fn common() -> Self {
        let pattern = |text| Pattern::regex(text).expect("it is an expression");
        Self {
            login: pattern("login: ?$"),
            password: pattern("(?i)(password|passphrase).{0,40}: ?$"),
            refusal: pattern(
                "(?i)^(login (incorrect|failed)|authentication (failure|failed)|permission denied|access denied\
                 |login timed out|maximum number of tries|too many (login|tries))",
            ),
            shell: pattern("[$#%>] ?$"),
        }
    }

    pub(super) fn asks_who(&self, line: &str) -> bool {
        // What a guest greets with is no question, even if its line is not complete yet.
        says(line, &self.login) && !line.trim_start().starts_with("Last login")
    }

    pub(super) fn asks_for_password(&self, line: &str) -> bool {
        says(line, &self.password)
    }

    pub(super) fn refuses(&self, line: &str) -> bool {
        says(line, &self.refusal)
    }

    pub(super) fn is_shell(&self, line: &str) -> bool {
        says(line, &self.shell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_questions_are_known() {
        let prompts = Prompts::common();

        for line in ["guest login: ", "login:", "Ubuntu 24.04 web tty1 web login: "] {
            assert!(prompts.asks_who(line), "{line}");
        }
        for line in ["Last login: ", "login: root", "Last login: Mon Nov 23 on ttyS0"] {
            assert!(!prompts.asks_who(line), "{line}");
        }
        for line in ["Password: ", "password:", "Password for root: ", "(current) UNIX password: "] {
            assert!(prompts.asks_for_password(line), "{line}");
        }
        for line in ["Login incorrect", "login failed", "Authentication failure"] {
            assert!(prompts.refuses(line), "{line}");
        }
        for line in ["guest# ", "user@host:~$ ", "[root@fedora ~]# ", "/ #", "host% ", "sh-5.2$ "] {
            assert!(prompts.is_shell(line), "{line}");
        }
        assert!(!prompts.is_shell("Welcome to Debian #1, all"));
    }
}
