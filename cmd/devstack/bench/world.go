package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/store"
)

const partitions = 8

// world is what one scenario runs in: a Temporal, a topic and a database with
// nothing in them, so that no figure depends on what was measured before.
type world struct {
	name     string
	b        *bench
	dir      string
	rollcall string        // the binary
	self     time.Duration // processor time of this process at the beginning

	temporalAddr string
	brokers      []string
	url          string
	topic, group string
	letters      string // dead-letter topic

	temporal, kafka        *process
	poller, worker, plain  *process
	pollerAdmin, workerAdm string

	pool  *pgxpool.Pool
	paced *kgo.Client // sends at once
	bulk  *kgo.Client // fills batches
	admin *kadm.Client
}

// newWorld starts the engines of a scenario. Without platform there is no
// Temporal, and the tables are left to the plain consumer.
func (b *bench) newWorld(ctx context.Context, name string, platform bool) (_ *world, err error) {
	w := &world{
		name: name, b: b, dir: filepath.Join(b.dir, name), rollcall: b.Rollcall, self: cpuOf("self"), brokers: b.KafkaBrokers,
		topic: "bench." + b.id + "." + name, group: "bench-" + b.id + "-" + name,
	}
	w.letters = w.topic + ".dlq"
	defer func() {
		if err != nil {
			w.close()
			err = fmt.Errorf("start the engines: %w", err)
		}
	}()
	if len(w.brokers) == 0 {
		var addr string
		if w.kafka, addr, err = self(ctx, w.dir, "kafka", nil); err != nil {
			return nil, err
		}
		w.brokers = []string{addr}
	}
	if platform {
		if w.temporal, w.temporalAddr, err = startTemporal(ctx, w.dir); err != nil {
			return nil, err
		}
	}
	if err := w.makeDatabase(ctx, platform); err != nil {
		return nil, err
	}
	return w, w.makeTopics(ctx)
}

// newDatabase is a world of tables alone.
func (b *bench) newDatabase(ctx context.Context, name string) (*world, error) {
	w := &world{name: name, b: b, dir: filepath.Join(b.dir, name), topic: name}
	if err := w.makeDatabase(ctx, true); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) makeDatabase(ctx context.Context, migrate bool) error {
	u, err := url.Parse(w.b.postgres.URL())
	if err != nil {
		return err
	}
	database := "bench_" + strings.NewReplacer("-", "_", ".", "_").Replace(w.name)
	if err := w.b.execute(ctx, `DROP DATABASE IF EXISTS `+database, `CREATE DATABASE `+database, `CHECKPOINT`); err != nil {
		return err
	}
	u.Path = "/" + database
	w.url = u.String()
	if migrate {
		if _, err := store.Migrate(ctx, w.url, nil); err != nil {
			return err
		}
	}
	config, err := pgxpool.ParseConfig(w.url)
	if err != nil {
		return err
	}
	config.MaxConns = 2
	w.pool, err = pgxpool.NewWithConfig(ctx, config)
	return err
}

func (w *world) makeTopics(ctx context.Context) error {
	var err error
	seeds := kgo.SeedBrokers(w.brokers...)
	if w.paced, err = kgo.NewClient(seeds, kgo.DefaultProduceTopic(w.topic), kgo.ProducerLinger(0)); err != nil {
		return err
	}
	if w.bulk, err = kgo.NewClient(seeds, kgo.DefaultProduceTopic(w.topic), kgo.ProducerLinger(5*time.Millisecond)); err != nil {
		return err
	}
	w.admin = kadm.NewClient(w.paced)
	if _, err := w.admin.CreateTopic(ctx, partitions, 1, nil, w.topic); err != nil {
		return err
	}
	_, err = w.admin.CreateTopic(ctx, 1, 1, nil, w.letters)
	return err
}

// close ends everything. What the engines kept is thrown away with them.
func (w *world) close() {
	w.poller.stop()
	w.plain.stop()
	w.worker.stop()
	if w.admin != nil && w.kafka == nil { // a Kafka that outlives the scenario
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, _ = w.admin.DeleteTopics(ctx, w.topic, w.letters)
		_, _ = w.admin.DeleteGroups(ctx, w.group)
		cancel()
	}
	if w.paced != nil {
		w.paced.Close()
	}
	if w.bulk != nil {
		w.bulk.Close()
	}
	w.temporal.kill()
	w.kafka.kill()
	if w.pool != nil {
		database := w.pool.Config().ConnConfig.Database
		w.pool.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_ = w.b.execute(ctx, `DROP DATABASE IF EXISTS `+database+` WITH (FORCE)`)
		cancel()
	}
	if !w.b.Keep {
		_ = os.RemoveAll(w.dir)
	}
}

// execute runs statements outside of every scenario's database.
func (b *bench) execute(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, b.postgres.URL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (w *world) env(adminAddr string) []string {
	return []string{
		"ROLLCALL_DATABASE_URL=" + w.url, "ROLLCALL_KAFKA_BROKERS=" + strings.Join(w.brokers, ","), "TEMPORAL_ADDRESS=" + w.temporalAddr,
		"ROLLCALL_ADMIN_ADDR=" + adminAddr, "ROLLCALL_LOG_LEVEL=warn",
	}
}

// startWorker starts the session worker and returns when it takes tasks.
func (w *world) startWorker(ctx context.Context) (err error) {
	if w.workerAdm, err = freeAddr(); err != nil {
		return err
	}
	w.worker, _, err = spawn(ctx, "worker", filepath.Join(w.dir, "worker.log"), w.env(w.workerAdm), false, w.rollcall, "worker")
	if err != nil {
		return err
	}
	return w.ready(ctx, w.worker, w.workerAdm)
}

// startPoller starts the poller and does not wait. It is a static member of its
// group: killed and started again, it has its partitions back without waiting
// for its own session to time out.
func (w *world) startPoller(ctx context.Context, flags ...string) (err error) {
	if w.pollerAdmin, err = freeAddr(); err != nil {
		return err
	}
	args := append([]string{w.rollcall, "poller", "--topic", w.topic, "--group", w.group, "--dead-letter-topic", w.letters, "--instance-id", "bench-1"}, flags...)
	w.poller, _, err = spawn(ctx, "poller", filepath.Join(w.dir, "poller.log"), w.env(w.pollerAdmin), false, args...)
	return err
}

// startPlatform starts both and returns when both are ready.
func (w *world) startPlatform(ctx context.Context, flags ...string) error {
	if err := w.startWorker(ctx); err != nil {
		return err
	}
	if err := w.startPoller(ctx, flags...); err != nil {
		return err
	}
	return w.ready(ctx, w.poller, w.pollerAdmin)
}

func (w *world) startPlain(ctx context.Context, batched bool) (err error) {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{path, "plain", "--log-level", "warn", "--brokers", strings.Join(w.brokers, ","), "--topic", w.topic, "--group", w.group}
	if batched {
		args = append(args, "--batched")
	}
	w.plain, _, err = spawn(ctx, "plain", filepath.Join(w.dir, "plain.log"), []string{"DATABASE_URL=" + w.url}, false, args...)
	return err
}

// alive reports which of the processes has ended although nobody told it to.
func (w *world) alive() error {
	for _, p := range []*process{w.temporal, w.kafka, w.worker, w.poller, w.plain} {
		if p != nil && p.ended() {
			return fmt.Errorf("%w: %s: %s", errEnded, p.name, p.tail())
		}
	}
	return nil
}

func (w *world) ready(ctx context.Context, p *process, addr string) error {
	return w.until(ctx, time.Minute, p.name+" is ready", func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil //nolint:nilerr // not listening yet
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK, nil
	})
}

// until polls a condition, at most for so long. It fails at once when a process
// has ended.
func (w *world) until(ctx context.Context, most time.Duration, what string, ok func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not after %s: %s", most, what))
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if done {
			return nil
		}
		if err := w.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// offsets are those of the topic's partitions.
type offsets map[int32]int64

func (o offsets) sum() int64 {
	var n int64
	for _, v := range o {
		n += v
	}
	return n
}

func (w *world) ends(ctx context.Context) (offsets, error) {
	listed, err := w.admin.ListEndOffsets(ctx, w.topic)
	if err != nil {
		return nil, err
	}
	out := offsets{}
	listed.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, listed.Error()
}

func (w *world) committed(ctx context.Context) (offsets, error) {
	out := offsets{}
	fetched, err := w.admin.FetchOffsets(ctx, w.group)
	if err != nil {
		if len(fetched) == 0 {
			return out, nil //nolint:nilerr // the group does not exist yet
		}
		return nil, err
	}
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Topic == w.topic && o.At > 0 {
			out[o.Partition] = o.At
		}
	})
	return out, nil
}

// lag is how many records are in the topic and not committed.
func (w *world) lag(ctx context.Context) (int64, error) {
	committed, err := w.committed(ctx)
	if err != nil {
		return 0, err
	}
	ends, err := w.ends(ctx)
	if err != nil {
		return 0, err
	}
	return ends.sum() - committed.sum(), nil
}

// reached waits until everything before ends is committed.
func (w *world) reached(ctx context.Context, ends offsets, most time.Duration) error {
	told := time.Now()
	return w.until(ctx, most, "all records are committed", func(ctx context.Context) (bool, error) {
		committed, err := w.committed(ctx)
		if err != nil {
			return false, err
		}
		done := true
		for p, end := range ends {
			done = done && committed[p] >= end
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			w.b.say("%s: %d of %d records are committed", w.name, committed.sum(), ends.sum())
		}
		return done, nil
	})
}

// awaitNoLag waits until there is no lag.
func (w *world) awaitNoLag(ctx context.Context, most time.Duration) error {
	ends, err := w.ends(ctx)
	if err != nil {
		return err
	}
	return w.reached(ctx, ends, most)
}

// dead is how many records are in the dead-letter topic.
func (w *world) dead(ctx context.Context) (int64, error) {
	listed, err := w.admin.ListEndOffsets(ctx, w.letters)
	if err != nil {
		return 0, err
	}
	var n int64
	listed.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n, listed.Error()
}

// scrape reads a process's metrics, summed by name and, where a series has
// them, by name and labels.
func scrape(ctx context.Context, addr string) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			continue
		}
		series := line[:i]
		out[series] += v
		if name, _, labelled := strings.Cut(series, "{"); labelled {
			out[name] += v
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no metrics at " + addr)
	}
	return out, nil
}

// matching sums the series that hold all of parts.
func matching(metrics map[string]float64, parts ...string) float64 {
	var sum float64
	for _, series := range slices.Collect(maps.Keys(metrics)) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(series, part)
		}
		if all {
			sum += metrics[series]
		}
	}
	return sum
}
