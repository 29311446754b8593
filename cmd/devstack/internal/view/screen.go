package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// refresh is how often the screen looks at the stack.
const refresh = 250 * time.Millisecond

// Screen draws the status until ctx is cancelled or the person quits (q, Esc or
// Ctrl-C). The last picture stays on the terminal.
func Screen(ctx context.Context, out *os.File, source Source) error {
	m := screen{source: source, status: source.look(), width: 100, height: 40}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithOutput(out), tea.WithoutSignalHandler()).Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("terminal view: %w", err)
	}
	return nil
}

type screen struct {
	source        Source
	status        Status
	width, height int
}

// look asks for the next status: off the event loop, because a look may take a
// moment when the stack is busy.
func (m screen) look() tea.Cmd {
	return tea.Tick(refresh, func(time.Time) tea.Msg { return m.source.look() })
}

// Init implements tea.Model.
func (m screen) Init() tea.Cmd { return m.look() }

// Update implements tea.Model.
func (m screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case Status:
		m.status = msg
		return m, m.look()
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		}
	}
	return m, nil
}

var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad   = lipgloss.NewStyle().Foreground(lipgloss.Red)
)

// View implements tea.Model.
func (m screen) View() tea.View {
	s := m.status
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n\n", bold.Render("Rollcall"), s.Phase, faint.Render("up "+s.Up.Round(time.Second).String()))
	for i, c := range s.counters() {
		if i > 0 {
			b.WriteString("   ")
		}
		b.WriteString(faint.Render(c.name) + " " + bold.Render(c.value))
	}
	b.WriteString("\n\n")
	const around = 9 // the lines that are not rows
	b.WriteString(m.table(m.height - around - len(s.Links)))
	b.WriteString("\n\n")
	for _, l := range s.Links {
		fmt.Fprintf(&b, "%-13s %s\n", l.Name, l.URL)
	}
	b.WriteString(faint.Render("q to stop"))
	return tea.NewView(b.String())
}

func (m screen) table(most int) string {
	t := table.New().Headers("MAC", "ADDRESS", "NAME", "MODEL", "STATUS", "SEQ", "SESSION").
		Border(lipgloss.HiddenBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderHeader(false).
		StyleFunc(func(row, col int) lipgloss.Style {
			cell := lipgloss.NewStyle().PaddingRight(1)
			switch {
			case row == table.HeaderRow:
				return cell.Bold(true)
			case col == 4 && row < len(m.status.Devices) && m.status.Devices[row].Status == "online":
				return cell.Inherit(good)
			case col == 4:
				return cell.Inherit(bad)
			}
			return cell
		})
	devices := m.status.Devices
	hidden := max(0, len(devices)-max(most, 3))
	for _, d := range devices[:len(devices)-hidden] {
		seq := fmt.Sprint(d.CloudSeq)
		if d.EdgeSeq > d.CloudSeq {
			seq = fmt.Sprintf("%d of %d", d.CloudSeq, d.EdgeSeq)
		}
		t.Row(d.MAC, orDash(d.Address), cut(orDash(d.Name), 26), cut(orDash(d.Model), 26), orDash(d.Status), seq, d.Session)
	}
	out := t.Render()
	if hidden > 0 {
		out += "\n" + faint.Render(fmt.Sprintf("… and %d more", hidden))
	}
	return out
}

func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
