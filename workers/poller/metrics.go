package poller

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the poller. Their names are an interface: a test freezes them.
// franz-go's own are beside them, as rollcall_poller_kafka_….
type metrics struct {
	fetches, records, applied, duplicates, rewinds, offsetsLost prometheus.Counter
	resignals, deadLetterFailures, commitBytes, restarts        prometheus.Counter

	signals, deadLetters, commits, ackReads, rebalances, windowCuts, drains, overBudget, clamped *prometheus.CounterVec

	window, oldestUnacked, waiting, stopped, buffered, paused, drainSeconds, drainLeft prometheus.Gauge

	lag, lagSeconds, inFlight, ready, offenders *prometheus.GaugeVec

	signalSeconds, ackSeconds, commitSeconds, pollRecords, foldRecords prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "rollcall_poller_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "rollcall_poller_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "rollcall_poller_" + name, Help: help})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_poller_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		})
	}
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "rollcall_poller_" + name, Help: help}, []string{label})
	}
	counts := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_poller_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		})
	}
	m := &metrics{
		fetches:            counter("fetches_total", "Fetch requests that a broker answered, empty answers too."),
		records:            counter("records_total", "Records fetched from Kafka."),
		applied:            counter("applied_records_total", "Records whose signalled batch is in the database."),
		duplicates:         counter("duplicate_records_total", "Records that were applied before they were fetched: no signal was sent."),
		resignals:          counter("resignals_total", "Batches signalled again because they were not applied in time."),
		deadLetterFailures: counter("dead_letter_failures_total", "Produces of a dead letter that failed and are tried again."),
		rewinds:            counter("rewinds_total", "Records whose offset is not above those before: the log was cut or made again."),

		offsetsLost: counter("offsets_lost_total", "Offsets that retention deleted before they were read."),

		commitBytes: counter("commit_bytes_total", "Bytes of offset-commit requests written to brokers."),
		restarts:    counter("restarts_total", "Times the consumer was built anew after a fatal error of its client."),

		signals:     vec("signals_total", "SignalWithStart calls by outcome: accepted, busy, conflict, outage, refused.", "outcome"),
		deadLetters: vec("dead_letters_total", "Records in the dead-letter topic, acknowledged, by reason.", "reason"),
		commits:     vec("commits_total", "Offset commits by outcome: ok, error.", "outcome"),
		ackReads:    vec("ack_reads_total", "Reads of ingest positions by outcome: ok, error.", "outcome"),
		rebalances:  vec("rebalances_total", "Rebalance callbacks by kind: assigned, revoked, lost.", "kind"),

		clamped: vec("clamped_records_total", "Records with a time too far ahead, set to when they were received, by whose clock: kafka (the record's timestamp), edge (the event's own times).", "clock"),

		windowCuts: vec("window_cuts_total", "Times the window was halved, by cause: busy (the sink said so), outage (it could not be reached).", "cause"),
		drains:     vec("drains_total", "Drains by outcome: complete, deadline.", "outcome"),

		overBudget: vec("over_budget_records_total", "Records of RAEs beyond a budget: sessions, new-sessions (both dead-lettered), events (served in a class of their own), dead-letter-bytes (dead-lettered without the value).", "budget"),
		offenders:  gauges("over_budget_rae_records", "Records beyond a budget of the RAEs with the most, at most ten, until ten minutes after the last; an empty name for serials that are too many to know.", "rae"),

		window:        gauge("window", "Sessions that may be in flight now."),
		oldestUnacked: gauge("oldest_unacked_seconds", "Time that the oldest batch in flight has been there."),
		waiting:       gauge("waiting_lanes", "Sessions with a fold that fills while their batch is in flight."),
		stopped:       gauge("stopped_lanes", "Sessions whose signal Temporal refuses for good. Alert on any."),
		buffered:      gauge("buffered_bytes", "Bytes held in folds and dead letters, as counted against the budgets."),
		paused:        gauge("paused_partitions", "Partitions whose fetch is paused."),
		drainSeconds:  gauge("drain_seconds", "Time the last drain took."),
		drainLeft:     gauge("drain_left_records", "Records that the last drain left to the next owner."),

		lag:        gauges("lag_records", "Records between what is done and the partition's end when last fetched.", "partition"),
		lagSeconds: gauges("lag_seconds", "Age, by its Kafka timestamp, of the oldest fetched record that is not done; 0 where all is done.", "partition"),
		inFlight:   gauges("in_flight", "Sessions with a batch sent, or about to be, and not yet applied.", "class"),
		ready:      gauges("ready_lanes", "Sessions with a fold that waits for the window.", "class"),

		signalSeconds: seconds("signal_seconds", "Time a signal took to be accepted."),
		ackSeconds:    seconds("ack_seconds", "Time from a signal's acceptance to the read that found it applied."),
		commitSeconds: seconds("commit_seconds", "Time from an offset commit's request to its answer."),
		pollRecords:   counts("poll_records", "Records that one turn of the poll loop took, turns without any left out."),
		foldRecords:   counts("fold_records", "Records that one signal carried."),
	}
	// What may be alerted on is there from the beginning.
	for _, cause := range []verdict{busy, outage} {
		m.windowCuts.WithLabelValues(string(cause))
	}
	for _, budget := range []string{"sessions", "new-sessions", "events", "dead-letter-bytes"} {
		m.overBudget.WithLabelValues(budget)
	}
	for _, clock := range []string{clockKafka, clockEdge} {
		m.clamped.WithLabelValues(clock)
	}
	for _, outcome := range []string{drainComplete, drainDeadline} {
		m.drains.WithLabelValues(outcome)
	}
	return m
}

// Outcomes of a drain.
const (
	drainComplete = "complete"
	drainDeadline = "deadline"
)

func label(partition int32) string { return strconv.Itoa(int(partition)) }
