package discovery

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// protocol is what a frame was taken for. It is the label of the frame and malformed counters.
type protocol int

const (
	protoOther protocol = iota
	protoTraffic
	protoARP
	protoNDP
	protoDHCP
	protoSSDP
	protoMDNS
	protoEthernet
	protoIP
	protocolCount
)

var protocolNames = [protocolCount]string{"other", "traffic", "arp", "ndp", "dhcp", "ssdp", "mdns", "ethernet", "ip"}

// Stats counts what sources and parsers did. Its methods may be called from any goroutine.
type Stats struct {
	frames       [protocolCount]atomic.Int64
	malformed    [protocolCount]atomic.Int64
	foreign      [protocolCount]atomic.Int64
	observations atomic.Int64
	cut          atomic.Int64
	kernelDrops  atomic.Int64
}

// NewStats returns counters at zero, registered on reg. A nil reg registers nothing.
func NewStats(reg prometheus.Registerer) (*Stats, error) {
	s := &Stats{}
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
	KernelDrops  int64 // frames the kernel dropped because a live source was too slow
}

// Snapshot reads the counters.
func (s *Stats) Snapshot() Snapshot {
	return Snapshot{
		Frames:       byProtocol(&s.frames),
		Malformed:    byProtocol(&s.malformed),
		Foreign:      byProtocol(&s.foreign),
		Observations: s.observations.Load(),
		ValuesCut:    s.cut.Load(),
		KernelDrops:  s.kernelDrops.Load(),
	}
}

func byProtocol(counters *[protocolCount]atomic.Int64) map[string]int64 {
	m := make(map[string]int64)
	for i := range counters {
		if n := counters[i].Load(); n > 0 {
			m[protocolNames[i]] = n
		}
	}
	return m
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
	for p, name := range protocolNames {
		counter(framesDesc, s.frames[p].Load(), name)
		counter(malformedDesc, s.malformed[p].Load(), name)
		counter(foreignDesc, s.foreign[p].Load(), name)
	}
	counter(observationsDesc, s.observations.Load())
	counter(cutDesc, s.cut.Load())
	counter(kernelDropsDesc, s.kernelDrops.Load())
}
