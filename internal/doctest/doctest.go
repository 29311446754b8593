// Package doctest reads the project's Markdown for the tests that hold it
// against the tree: its links and headings, and the commands that it shows. It
// knows as much of Markdown and of the shell as the project's pages use.
package doctest

import (
	"regexp"
	"strings"
	"unicode"
)

// Block is a fenced or an indented block of code.
type Block struct {
	Section string // text of the heading above it
	Line    int    // of its first line of code, from 1
	Lang    string // console, sh, …; empty where none is given
	Text    string
}

// Page is one Markdown file.
type Page struct {
	Headings []string
	Links    []string // targets, images' too
	Inline   []string // inline code
	Blocks   []Block
}

var (
	heading = regexp.MustCompile(`^#{1,6} (.+)$`)
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	inline  = regexp.MustCompile("`([^`]+)`")
)

// Parse reads a page.
func Parse(markdown string) Page {
	var p Page
	var block *Block
	fenced, section := false, ""
	end := func() {
		if block != nil {
			p.Blocks = append(p.Blocks, *block)
		}
		block = nil
	}
	blank := true // the line before
	for i, line := range strings.Split(markdown, "\n") {
		text, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		indented := strings.HasPrefix(line, "    ")
		switch {
		case isFence && fenced:
			fenced = false
			end()
		case isFence:
			end()
			fenced, block = true, &Block{Section: section, Line: i + 2, Lang: text}
		case fenced:
			block.Text += line + "\n"
		case indented && (block != nil || blank):
			if block == nil {
				block = &Block{Section: section, Line: i + 1}
			}
			block.Text += line[4:] + "\n"
		default:
			end()
			if m := heading.FindStringSubmatch(line); m != nil {
				section = m[1]
				p.Headings = append(p.Headings, section)
			}
			for _, m := range inline.FindAllStringSubmatch(line, -1) {
				p.Inline = append(p.Inline, m[1])
			}
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				p.Links = append(p.Links, m[1])
			}
		}
		blank = strings.TrimSpace(line) == ""
	}
	end()
	return p
}

// Anchor is the fragment by which GitHub links to a heading.
func Anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

// Step is one command of a console block, and what the page says it prints.
type Step struct {
	Command string
	Output  string
}

// Steps are the commands of a console block: a command follows "$ ".
func (b Block) Steps() []Step {
	var steps []Step
	for line := range strings.Lines(b.Text) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, Step{Command: command})
			continue
		}
		if len(steps) == 0 {
			continue
		}
		last := &steps[len(steps)-1]
		if strings.HasSuffix(last.Command, "\\\n") {
			last.Command += line
		} else {
			last.Output += line
		}
	}
	return steps
}

// Commands are the simple commands that the page shows, each as its words: those
// of its blocks of code, and of inline code that begins with one of names.
// Inline, "list|show" stands for two commands.
func (p Page) Commands(names ...string) [][]string {
	var all [][]string
	for _, b := range p.Blocks {
		switch b.Lang {
		case "console":
			for _, s := range b.Steps() {
				all = append(all, Commands(s.Command)...)
			}
		case "sh", "":
			all = append(all, Commands(b.Text)...)
		}
	}
	for _, code := range p.Inline {
		for _, name := range names {
			if strings.HasPrefix(code, name+" ") {
				for _, words := range Commands(code) {
					all = append(all, alternatives(words)...)
				}
			}
		}
	}
	return all
}

// alternatives is one list of words for each choice that words leave.
func alternatives(words []string) [][]string {
	all := [][]string{nil}
	for _, word := range words {
		var next [][]string
		for _, choice := range strings.Split(word, "|") {
			for _, before := range all {
				next = append(next, append(append([]string{}, before...), choice))
			}
		}
		all = next
	}
	return all
}

// Commands splits a shell script into its simple commands, those in $(…) too, and
// these into words, without quotes, comments, redirections and the ellipses that
// a page leaves out text by.
func Commands(script string) [][]string {
	var s splitter
	s.split([]rune(strings.ReplaceAll(script, "\\\n", " ")))
	return s.commands
}

type splitter struct {
	commands [][]string
	words    []string
	word     strings.Builder
	inWord   bool
	skip     bool // the word that begins next is a redirection's
}

func (s *splitter) endWord() {
	if w := s.word.String(); s.inWord && !s.skip && !strings.Contains(w, "…") && w != "..." {
		s.words = append(s.words, w)
	}
	if s.inWord {
		s.skip = false
	}
	s.word.Reset()
	s.inWord = false
}

func (s *splitter) endCommand() {
	s.endWord()
	s.skip = false
	if len(s.words) > 0 {
		s.commands = append(s.commands, s.words)
	}
	s.words = nil
}

func (s *splitter) add(r rune) {
	s.word.WriteRune(r)
	s.inWord = true
}

func (s *splitter) split(in []rune) {
	for i := 0; i < len(in); i++ {
		switch r := in[i]; {
		case r == '\\' && i+1 < len(in):
			i++
			s.add(in[i])
		case r == '\'':
			s.inWord = true
			for i++; i < len(in) && in[i] != '\''; i++ {
				s.add(in[i])
			}
		case r == '"':
			s.inWord = true
			for i++; i < len(in) && in[i] != '"'; i++ {
				switch {
				case in[i] == '\\' && i+1 < len(in):
					i++
					s.add(in[i])
				case substitution(in[i:]):
					i = s.nested(in, i)
				default:
					s.add(in[i])
				}
			}
		case substitution(in[i:]):
			i = s.nested(in, i)
		case r == '#' && !s.inWord:
			for i+1 < len(in) && in[i+1] != '\n' {
				i++
			}
		case r == '|' && s.inWord && i+1 < len(in) && unicode.IsLower(in[i+1]):
			s.add(r)
		case r == '>' || r == '<':
			if strings.Trim(s.word.String(), "0123456789") == "" {
				s.word.Reset()
				s.inWord = false
			}
			s.endWord()
			for i+1 < len(in) && strings.ContainsRune("<>&", in[i+1]) {
				i++
			}
			s.skip = true
		case strings.ContainsRune("|&;\n()", r):
			s.endCommand()
		case unicode.IsSpace(r):
			s.endWord()
		default:
			s.add(r)
		}
	}
	s.endCommand()
}

func substitution(in []rune) bool { return len(in) > 1 && in[0] == '$' && in[1] == '(' }

// nested reads the $(…) that begins at i as commands of its own, adds it to the
// word as it is, and returns where it ends.
func (s *splitter) nested(in []rune, i int) int {
	depth, from := 0, i+2
	for ; i < len(in); i++ {
		s.add(in[i])
		if in[i] == '(' {
			depth++
		}
		if in[i] == ')' {
			if depth--; depth == 0 {
				break
			}
		}
	}
	s.commands = append(s.commands, Commands(string(in[from:min(i, len(in))]))...)
	return i
}
