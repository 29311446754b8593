package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// watchInterval is how often a TopicWatch asks, and suspectPause how long it
	// waits where something is wrong: so long a deletion is in the making.
	watchInterval = 5 * time.Second
	suspectPause  = 500 * time.Millisecond
	// unheardAfter is how long no broker may answer before that is why a
	// service is not ready.
	unheardAfter = 15 * time.Second
	askTimeout   = 10 * time.Second
)

// TopicMetrics tell of the topics that a service uses. Several clients of one
// service may share them.
type TopicMetrics struct {
	recreations *prometheus.CounterVec
	missing     *prometheus.GaugeVec
}

// NewTopicMetrics registers the metrics {prefix}_topic_recreations_total and
// {prefix}_topic_missing.
func NewTopicMetrics(r prometheus.Registerer, prefix string) *TopicMetrics {
	f := promauto.With(r)
	return &TopicMetrics{
		recreations: f.NewCounterVec(prometheus.CounterOpts{Name: prefix + "_topic_recreations_total", Help: "Times a Kafka topic was deleted and made anew under the running service, by topic."}, []string{"topic"}),
		missing:     f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "_topic_missing", Help: "1 while a Kafka topic that the service needs does not exist or may not be described."}, []string{"topic"}),
	}
}

// TopicWatch notices that a topic which a client uses is deleted or made anew.
//
// A client of Kafka holds on to the topic that it knew, by ID: what it asks of a
// topic that was made anew fails for ever, because nothing but its name says that
// the two topics are one. That they are is ours to decide. So the watch asks for
// the IDs, every few seconds and when a request has failed, and calls Recreated.
type TopicWatch struct {
	client    *kgo.Client
	topics    []string
	recreated func(topic string)
	log       *slog.Logger
	metrics   *TopicMetrics
	suspects  chan string // holds one

	mu     sync.Mutex
	known  map[string]incarnation
	heard  time.Time // when a broker last answered
	answer error     // why the last question had none
}

// incarnation is what is known of a topic.
type incarnation struct {
	id, previous kadm.TopicID // zero: the brokers have no IDs, or none is known
	absent       int          // looks in a row without it
}

// NewTopicWatch returns a watch over topics of client. Recreated is called by Run,
// with a topic whose ID has changed or that a Failed error is about; it must make
// the client forget the old one.
func NewTopicWatch(client *kgo.Client, log *slog.Logger, metrics *TopicMetrics, recreated func(topic string), topics ...string) *TopicWatch {
	for _, t := range topics {
		metrics.recreations.WithLabelValues(t)
		metrics.missing.WithLabelValues(t).Set(0)
	}
	return &TopicWatch{
		client: client, topics: topics, recreated: recreated, log: log, metrics: metrics,
		suspects: make(chan string, 1), known: map[string]incarnation{}, heard: time.Now(),
	}
}

// Failed tells the watch of a request about topic that failed. It looks at once
// where the error may be of a topic that was deleted.
func (w *TopicWatch) Failed(topic string, err error) {
	if !errors.Is(err, kerr.UnknownTopicID) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return
	}
	select {
	case w.suspects <- topic:
	default:
	}
}

// Ready is nil while all topics are there and brokers answer; else it says what
// is not.
func (w *TopicWatch) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.heard); since > unheardAfter {
		return fmt.Errorf("no Kafka broker has answered for %s: %w", since.Round(time.Second), w.answer)
	}
	for _, t := range w.topics {
		if w.known[t].absent > 1 {
			return fmt.Errorf("topic %q does not exist, or may not be described: create it", t)
		}
	}
	return nil
}

// Run looks until ctx ends.
func (w *TopicWatch) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		suspect := ""
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case suspect = <-w.suspects:
			timer.Stop()
		}
		calm := w.look(ctx, suspect)
		pause := watchInterval
		if !calm {
			pause = suspectPause
		}
		timer.Reset(pause)
		if suspect != "" { // a client that fails at every request tells of each
			select {
			case <-ctx.Done():
				return
			case <-time.After(suspectPause):
			}
		}
	}
}

// look asks once. It reports whether nothing is wrong.
func (w *TopicWatch) look(ctx context.Context, suspect string) (calm bool) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	details, err := kadm.NewClient(w.client).ListTopics(asking, w.topics...)
	if ctx.Err() != nil {
		return true
	}
	w.mu.Lock()
	w.answer = err
	if err == nil {
		w.heard = time.Now()
	}
	w.mu.Unlock()
	if err != nil {
		return false
	}
	calm = true
	for _, t := range w.topics {
		d, there := details[t]
		if !w.note(t, d.ID, there && d.Err == nil && len(d.Partitions) > 0, t == suspect) {
			calm = false
		}
	}
	return calm
}

// note takes note of what a look found of a topic, and reports whether it is there.
func (w *TopicWatch) note(topic string, id kadm.TopicID, there, suspect bool) bool {
	var none kadm.TopicID
	w.mu.Lock()
	known := w.known[topic]
	was := known
	switch {
	case !there:
		known.absent++
	case id == known.previous && id != none: // from a broker that is behind
		w.mu.Unlock()
		return false
	default:
		known.absent = 0
		if known.id != none && id != known.id {
			known.previous = known.id
		}
		known.id = id
	}
	w.known[topic] = known
	w.mu.Unlock()

	changed := there && was.id != none && id != was.id
	switch {
	case !there && known.absent == 2: // one look may be of a broker that is behind
		w.metrics.missing.WithLabelValues(topic).Set(1)
		w.log.Error("Kafka topic does not exist any more, or may not be described: create it; what needs it waits", "topic", topic)
	case there && was.absent > 1:
		w.metrics.missing.WithLabelValues(topic).Set(0)
		if !changed {
			w.log.Info("Kafka topic is there again", "topic", topic)
		}
	}
	switch {
	case changed:
		w.metrics.recreations.WithLabelValues(topic).Inc()
		w.log.Error("Kafka topic was deleted and made anew; going on with the new one. What was in the old one and not yet read is lost to Kafka",
			"topic", topic, "id", id, "was", was.id)
		w.recreated(topic)
	case there && suspect:
		w.recreated(topic)
	}
	return there
}
