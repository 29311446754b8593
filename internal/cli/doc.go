// Package cli is what the project's commands share: how a grammar becomes a
// running command, where settings come from, how it logs, stops and fails.
//
// Settings come, first found first used, from the flag, its environment
// variable, the YAML file of --config, the default. A key in the file that no
// command knows is an error that names it and its line.
//
// Exit codes: 0 done, or stopped by a signal after draining; 1 it failed;
// 2 it was called wrongly (a flag, an argument, the environment or the file);
// 3 what was asked for does not exist. A second SIGINT or SIGTERM ends the
// process at once, by that signal.
//
// Errors are one line on standard error: "rollcall: …". Passwords are kept in
// SecretFile and URL, which print as "[redacted]", and URLs in error texts lose
// their password before they are printed.
package cli
