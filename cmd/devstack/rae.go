package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/check"
	"github.com/rollcall-platform/rollcall/edge"
	"github.com/rollcall-platform/rollcall/internal/mqtt"
	recording "github.com/rollcall-platform/rollcall/testdata/lan"
)

// rae is one edge that replays a capture.
type rae struct {
	serial, capture string
	edge            *edge.Edge
	stop            func(context.Context) error // waits; its records can still be read
}

// captures are the files to replay: those that were given, or the recorded LAN
// with its truth, which are written into the data directory.
func (s *stack) captures(c *demoCmd) ([]string, error) {
	if c.noRAE || len(c.Capture) > 0 {
		return c.Capture, nil
	}
	dir := s.dir(recordingDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("recorded LAN: %w", err)
	}
	capture := filepath.Join(dir, "lan.pcap")
	for path, content := range map[string][]byte{capture: recording.Capture, filepath.Join(dir, check.TruthFile): recording.Truth} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, fmt.Errorf("recorded LAN: %w", err)
		}
	}
	return []string{capture}, nil
}

// startRAEs starts an edge for each capture.
func (s *stack) startRAEs(c *demoCmd) ([]*rae, error) {
	captures, err := s.captures(c)
	if err != nil {
		return nil, err
	}
	var raes []*rae
	for _, capture := range captures {
		serial := serialOf(capture)
		e, err := edge.New(edge.Options{
			RAE: serial, DataDir: s.dir("rae/" + serial), Logger: s.log.With("rae", serial),
			Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"rae": serial}, s.registry),
			Capture:    capture, Speed: c.replaySpeed(),
			Broker:           mqtt.Broker{URL: "mqtt://" + loopback(s.flags.MQTTPort), Username: serial, Password: "demo"},
			SnapshotInterval: c.SnapshotInterval,
		})
		if err != nil {
			return nil, fmt.Errorf("start RAE %s: %w", serial, err)
		}
		s.checks["rae "+serial] = e.Ready
		s.admin.AddCheck("rae "+serial, e.Ready)
		stop := s.run("RAE "+serial, e.Run)
		raes = append(raes, &rae{serial: serial, capture: capture, edge: e, stop: stop})
	}
	return raes, nil
}

// ended reports whether the capture has been replayed to its end.
func (r *rae) ended() bool {
	select {
	case <-r.edge.Ended():
		return true
	default:
		return false
	}
}

// broken is why the replay ended before the capture did, or nil.
func (r *rae) broken() error {
	if !r.ended() {
		return nil
	}
	if err := r.edge.Broken(); err != nil {
		return fmt.Errorf("replay of %s: %w", r.capture, err)
	}
	return nil
}

func (r *rae) phase() string {
	position := r.edge.Position()
	if r.ended() {
		return fmt.Sprintf("%s: replayed, %d frames", r.serial, position.Frame)
	}
	return fmt.Sprintf("%s: replaying", r.serial)
}

// pending counts the events that the broker does not have yet, and the devices
// with changes that no event tells of yet.
func (r *rae) pending() int64 {
	events, _ := r.edge.Pending()
	n := int64(events)
	for _, d := range r.edge.Devices() {
		if d.Waiting {
			n++
		}
	}
	return n
}

// records are the edge's, for the comparison.
func (r *rae) records() []check.Record {
	var out []check.Record
	for _, d := range r.edge.Devices() {
		attributes := make(map[string]check.Attribute, len(d.Attributes))
		for name, a := range d.Attributes {
			attributes[name] = check.Attribute{Value: a.Value, Seq: a.Seq}
		}
		out = append(out, check.Record{RAE: r.serial, Session: d.Session, Seq: d.Seq, Attributes: attributes})
	}
	return out
}
