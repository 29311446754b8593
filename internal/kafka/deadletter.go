package kafka

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers of a dead letter, beside the original record's own.
const (
	HeaderTopic     = "rollcall-dlq-topic"     // Kafka topic it was in, or meant for
	HeaderPartition = "rollcall-dlq-partition" // -1 where it never got into one
	HeaderOffset    = "rollcall-dlq-offset"    // -1 where it never got one
	HeaderReason    = "rollcall-dlq-reason"    // a device.Cause, or one of the reasons below
	HeaderDetail    = "rollcall-dlq-detail"    // for people

	// Of a dead letter that Truncate shortened:
	HeaderSize    = "rollcall-dlq-size"            // bytes of the original value
	HeaderSHA256  = "rollcall-dlq-sha256"          // of the original value, lower-case hex
	HeaderDropped = "rollcall-dlq-dropped-headers" // how many original headers were left out
)

// Reasons that are not of decoding.
const (
	ReasonKafkaLimit = "kafka-limit"          // larger than the topic takes
	ReasonTopic      = "bad-topic"            // a topic that no device event comes on
	ReasonDecompress = "decompress-too-large" // a producer's batch that would not fit memory, or does not decompress: the offset is its last, and there is no value
)

const (
	maxDetail           = 1 << 10
	maxTruncatedValue   = 32 << 10
	maxTruncatedKey     = 4 << 10
	maxTruncatedHeaders = 16 << 10
)

// DeadLetter returns the record for topic dlq that tells of r: r's key, value,
// headers and timestamp, and headers that say where r was and why it is here.
// Truncate it when Kafka refuses it for its size.
func DeadLetter(dlq string, r *kgo.Record, reason, detail string) *kgo.Record {
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	if !utf8.ValidString(detail) {
		detail = strings.ToValidUTF8(detail, "\uFFFD")
	}
	h := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return &kgo.Record{
		Topic: dlq, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp,
		Headers: slices.Concat(r.Headers, []kgo.RecordHeader{
			h(HeaderTopic, r.Topic),
			h(HeaderPartition, strconv.Itoa(int(r.Partition))),
			h(HeaderOffset, strconv.FormatInt(r.Offset, 10)),
			h(HeaderReason, reason),
			h(HeaderDetail, detail),
		}),
	}
}

// Truncate returns a dead letter that fits the smallest limits in use: the
// first 32 KiB of the value and 4 KiB of the key, and the original headers only
// where they have 16 KiB or less. What was cut is told by its size and hash.
func Truncate(letter *kgo.Record) *kgo.Record {
	sum := sha256.Sum256(letter.Value)
	out := &kgo.Record{
		Topic: letter.Topic, Timestamp: letter.Timestamp,
		Key:   letter.Key[:min(len(letter.Key), maxTruncatedKey)],
		Value: letter.Value[:min(len(letter.Value), maxTruncatedValue)],
	}
	size := 0
	for _, h := range letter.Headers {
		if !strings.HasPrefix(h.Key, "rollcall-dlq-") {
			size += len(h.Key) + len(h.Value)
		}
	}
	dropped := 0
	for _, h := range letter.Headers {
		if size > maxTruncatedHeaders && !strings.HasPrefix(h.Key, "rollcall-dlq-") {
			dropped++
			continue
		}
		out.Headers = append(out.Headers, h)
	}
	out.Headers = append(out.Headers,
		kgo.RecordHeader{Key: HeaderSize, Value: []byte(strconv.Itoa(len(letter.Value)))},
		kgo.RecordHeader{Key: HeaderSHA256, Value: []byte(hex.EncodeToString(sum[:]))})
	if dropped > 0 {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: HeaderDropped, Value: []byte(strconv.Itoa(dropped))})
	}
	return out
}

// ErrIncomplete is wrapped by Original's error for a letter that does not hold
// all of the record that it tells of.
var ErrIncomplete = errors.New("the letter does not hold the whole record")

// Original returns the record that DeadLetter was given: its topic, key, value,
// headers and timestamp. Its partition and offset are those that it had.
func Original(letter *kgo.Record) (*kgo.Record, error) {
	switch topic := Header(letter, HeaderTopic); {
	case topic == "":
		return nil, fmt.Errorf("%w: no header %s says which topic it was in", ErrIncomplete, HeaderTopic)
	case Header(letter, HeaderSHA256) != "":
		return nil, fmt.Errorf("%w: %d of its %s bytes were kept (SHA-256 of the whole: %s)", ErrIncomplete,
			len(letter.Value), Header(letter, HeaderSize), Header(letter, HeaderSHA256))
	case Header(letter, HeaderReason) == ReasonDecompress:
		return nil, fmt.Errorf("%w: it stands for a batch that was too large to decompress", ErrIncomplete)
	}
	out := &kgo.Record{Topic: Header(letter, HeaderTopic), Partition: -1, Offset: -1, Key: letter.Key, Value: letter.Value, Timestamp: letter.Timestamp}
	if n, err := strconv.ParseInt(Header(letter, HeaderPartition), 10, 32); err == nil {
		out.Partition = int32(n)
	}
	if n, err := strconv.ParseInt(Header(letter, HeaderOffset), 10, 64); err == nil {
		out.Offset = n
	}
	// Ours are the last of their names: the record may have come with others
	// of the same, from a dead-letter topic that it was in before.
	ours := []string{HeaderTopic, HeaderPartition, HeaderOffset, HeaderReason, HeaderDetail}
	for _, h := range slices.Backward(letter.Headers) {
		if i := slices.Index(ours, h.Key); i >= 0 {
			ours = slices.Delete(ours, i, i+1)
			continue
		}
		out.Headers = append(out.Headers, h)
	}
	slices.Reverse(out.Headers)
	return out, nil
}

// Header returns the value of r's header named key, or "".
func Header(r *kgo.Record, key string) string {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
