package discovery

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// protocol is what a frame was taken for. Its name is the label "protocol" of the metrics: see
// sourceTable.names.
type protocol int

const (
	protoOther    protocol = iota // neither IP nor what a source wants
	protoTraffic                  // IP that no source wants: it shows its sender
	protoEthernet                 // a malformed Ethernet header
	protoIP                       // a malformed IP or UDP header
	firstSource                   // the first of sources; the others follow in their order
)

var baseProtocols = [firstSource]string{"other", "traffic", "ethernet", "ip"}

// protocolCounts are the counters of one protocol.
type protocolCounts struct {
	frames, malformed, foreign atomic.Int64
}

// Stats counts what captures and parsers did. Its methods may be called from any goroutine.
type Stats struct {
	names        []string         // by protocol
	protocols    []protocolCounts // by protocol
	observations atomic.Int64
	cut          atomic.Int64
	kernelDrops  atomic.Int64
}

// NewStats returns counters at zero, registered on reg. A nil reg registers nothing.
func NewStats(reg prometheus.Registerer) (*Stats, error) {
	s := &Stats{names: sources.names, protocols: make([]protocolCounts, len(sources.names))}
	if reg == nil {
		return s, nil
	}
	if err := reg.Register(s); err != nil {
		return nil, fmt.Errorf("register discovery metrics: %w", err)
	}
	return s, nil
}

// Snapshot is the counters at one moment. Protocols with a count of zero are left out of the maps.
type Snapshot struct {
	Frames       map[string]int64 // frames parsed, by protocol
	Malformed    map[string]int64 // frames whose content broke the protocol's rules, by protocol
	Foreign      map[string]int64 // announcements the sender cannot speak for, by protocol
	Observations int64
	ValuesCut    int64 // values that lost bytes to the length limit or to invalid characters
	KernelDrops  int64 // frames the kernel dropped because a live capture was read too slowly
}

// Snapshot reads the counters.
func (s *Stats) Snapshot() Snapshot {
	return Snapshot{
		Frames:       s.byProtocol(func(c *protocolCounts) int64 { return c.frames.Load() }),
		Malformed:    s.byProtocol(func(c *protocolCounts) int64 { return c.malformed.Load() }),
		Foreign:      s.byProtocol(func(c *protocolCounts) int64 { return c.foreign.Load() }),
		Observations: s.observations.Load(),
		ValuesCut:    s.cut.Load(),
		KernelDrops:  s.kernelDrops.Load(),
	}
}

func (s *Stats) byProtocol(load func(*protocolCounts) int64) map[string]int64 {
	m := make(map[string]int64)
	for i := range s.protocols {
		if n := load(&s.protocols[i]); n > 0 {
			m[s.names[i]] = n
		}
	}
	return m
}

// of returns the counters of a source.
func (s *Stats) of(name string) *protocolCounts {
	return &s.protocols[slices.Index(s.names, name)]
}

var (
	framesDesc = prometheus.NewDesc("rollcall_edge_frames_total",
		"Frames read from the LAN, by what they were taken for.", []string{"protocol"}, nil)
	malformedDesc = prometheus.NewDesc("rollcall_edge_frames_malformed_total",
		"Frames whose content broke the rules of their protocol, by protocol.", []string{"protocol"}, nil)
	foreignDesc = prometheus.NewDesc("rollcall_edge_announcements_foreign_total",
		"Announcements left out because the sender cannot speak for them, by protocol.", []string{"protocol"}, nil)
	observationsDesc = prometheus.NewDesc("rollcall_edge_observations_total",
		"Observations about devices made from frames.", nil, nil)
	cutDesc = prometheus.NewDesc("rollcall_edge_values_cut_total",
		"Announced values that lost bytes to the length limit or to invalid characters.", nil, nil)
	kernelDropsDesc = prometheus.NewDesc("rollcall_edge_kernel_drops_total",
		"Frames the kernel dropped because the capture was too slow.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Stats) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{framesDesc, malformedDesc, foreignDesc, observationsDesc, cutDesc, kernelDropsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Stats) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for i, name := range s.names {
		p := &s.protocols[i]
		counter(framesDesc, p.frames.Load(), name)
		counter(malformedDesc, p.malformed.Load(), name)
		counter(foreignDesc, p.foreign.Load(), name)
	}
	counter(observationsDesc, s.observations.Load())
	counter(cutDesc, s.cut.Load())
	counter(kernelDropsDesc, s.kernelDrops.Load())
}
