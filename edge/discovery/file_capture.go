package discovery

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/rollcall-platform/rollcall/internal/retry"
)

// readBuffer must be at least bufio's default: the capture readers then use the buffer they are given
// instead of one of their own, so that offsets are exact.
const readBuffer = 64 << 10

// FileOptions configures a FileCapture.
type FileOptions struct {
	// Path names a pcap or pcapng file, which may be gzip-compressed. Required.
	Path string
	// Speed is the replay speed: 1 as recorded, 10 ten times as fast, 0 as fast as it goes. Default 0.
	Speed float64
	// MaxGap bounds the replayed time between two frames: a longer pause in the recording is cut to it.
	// Default 0: pauses are kept.
	MaxGap time.Duration
	// StartAt is the index of the last frame that needs no replay: frames up to it are skipped without
	// pacing. Default 0: all are delivered.
	StartAt int64
	// Skipped gets each frame that StartAt skips, with its recorded time. A parser that is fed them (its
	// observations unused) continues after a restart as if there had been none. Default: nothing.
	Skipped func(Frame)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Wait sleeps for d or until ctx ends, and then returns its error. Default: a timer.
	Wait func(ctx context.Context, d time.Duration) error
}

// FileCapture replays a capture file. A replay stands for a live LAN: Frame.Time runs from the moment of
// the first frame at Speed, or is the clock's when replaying as fast as it goes; it never goes back,
// whatever the recorded times do.
type FileCapture struct {
	o       FileOptions
	file    *os.File
	input   *countingReader
	buffer  *bufio.Reader
	records records
	index   int64
	held    *Frame // read, and not due yet
	err     error  // what ended the capture; returned by every further Next

	start    time.Time // replay time of the first frame delivered
	elapsed  time.Duration
	previous time.Time // latest recorded time so far
}

// records is what pcapgo's two readers have in common.
type records interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// OpenFile opens a capture and checks its header. Errors wrap ErrEmptyCapture, ErrNotCapture,
// ErrTruncated or ErrLinkType, or are the operating system's.
func OpenFile(o FileOptions) (*FileCapture, error) {
	if o.Speed < 0 {
		return nil, fmt.Errorf("replay speed %v of %s: must not be negative (0 is as fast as it goes)", o.Speed, o.Path)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = retry.Sleep
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	s := &FileCapture{o: o, file: f}
	if err := s.readHeader(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *FileCapture) readHeader() error {
	if info, err := s.file.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("capture %s: is a directory: %w", s.o.Path, ErrNotCapture)
	}
	s.input = &countingReader{r: s.file}
	s.buffer = bufio.NewReaderSize(s.input, readBuffer)
	magic, err := s.buffer.Peek(4)
	switch {
	case errors.Is(err, io.EOF) && len(magic) == 0:
		return fmt.Errorf("capture %s: %w", s.o.Path, ErrEmptyCapture)
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read capture %s: %w", s.o.Path, err)
	}
	if bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) {
		zipped, err := gzip.NewReader(s.buffer)
		if err != nil {
			return fmt.Errorf("capture %s: gzip header: %w", s.o.Path, ErrNotCapture)
		}
		s.input = &countingReader{r: zipped}
		s.buffer = bufio.NewReaderSize(s.input, readBuffer)
		if magic, err = s.buffer.Peek(4); err != nil && !errors.Is(err, io.EOF) {
			return s.fault(err, 0)
		}
	}
	switch captureFormat(magic) {
	case formatPcap:
		s.records, err = openRecords(pcapgo.NewReader(s.buffer))
	case formatPcapNG:
		s.records, err = openRecords(pcapgo.NewNgReader(s.buffer, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true}))
	default:
		return fmt.Errorf("capture %s begins with bytes %x: %w", s.o.Path, magic, ErrNotCapture)
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // a magic number was there: the file ends in its header
		}
		return s.fault(err, 0)
	}
	return s.checkLinkType()
}

// openRecords keeps a failed reader from becoming an interface that is not nil.
func openRecords[R records](r R, err error) (records, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *FileCapture) checkLinkType() error {
	if lt := s.records.LinkType(); lt != layers.LinkTypeEthernet {
		return fmt.Errorf("capture %s has link type %d (%s): %w; record it on one interface, not on \"any\"",
			s.o.Path, uint16(lt), lt, ErrLinkType)
	}
	return nil
}

// Next implements Capture. Errors of the file name it, the frame and the byte offset; one that wraps
// ErrTruncated comes after every whole frame was delivered.
func (s *FileCapture) Next(ctx context.Context) (Frame, error) {
	if s.err != nil {
		return Frame{}, s.err
	}
	for s.held == nil {
		if err := ctx.Err(); err != nil {
			return Frame{}, err
		}
		begin := s.offset()
		data, info, err := s.records.ReadPacketData()
		if err != nil {
			s.err = s.fault(err, begin)
			return Frame{}, s.err
		}
		s.index++
		frame := Frame{Time: info.Timestamp, Recorded: info.Timestamp, Index: s.index, Data: data, LinkType: LinkEthernet}
		if s.index <= s.o.StartAt {
			if s.o.Skipped != nil {
				s.o.Skipped(frame)
			}
			continue
		}
		s.schedule(info.Timestamp)
		s.held = &frame
	}
	due, err := s.due(ctx)
	if err != nil {
		return Frame{}, err
	}
	frame := *s.held
	frame.Time, s.held = due, nil
	return frame, nil
}

// schedule moves the replay time on to that of a frame recorded at the given time.
func (s *FileCapture) schedule(recorded time.Time) {
	if s.previous.IsZero() {
		s.start, s.previous = s.o.Now(), recorded
	}
	gap := recorded.Sub(s.previous)
	if gap <= 0 || s.o.Speed == 0 {
		return
	}
	s.previous = recorded
	replayed := time.Duration(float64(gap) / s.o.Speed)
	if s.o.MaxGap > 0 {
		replayed = min(replayed, s.o.MaxGap)
	}
	s.elapsed += replayed
}

// due waits until the replay time has come and returns it.
func (s *FileCapture) due(ctx context.Context) (time.Time, error) {
	if s.o.Speed == 0 {
		return s.o.Now(), nil
	}
	due := s.start.Add(s.elapsed)
	if d := due.Sub(s.o.Now()); d > 0 {
		if err := s.o.Wait(ctx, d); err != nil {
			return time.Time{}, err
		}
	}
	return due, nil
}

// Close implements Capture.
func (s *FileCapture) Close() error { return s.file.Close() }

// offset is how many bytes of the (uncompressed) file have been used.
func (s *FileCapture) offset() int64 { return s.input.n - int64(s.buffer.Buffered()) }

// fault explains why the record that begins at an offset could not be read.
func (s *FileCapture) fault(err error, begin int64) error {
	end := s.offset()
	if errors.Is(err, io.EOF) && end == begin {
		return io.EOF
	}
	at := fmt.Sprintf("capture %s, frame %d at byte %d", s.o.Path, s.index+1, begin)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w: the file ends at byte %d", at, ErrTruncated, end)
	case errors.Is(err, pcapgo.ErrNgLinkTypeMismatch):
		return fmt.Errorf("%s: %w: its interfaces have different link types", at, ErrLinkType)
	case errors.Is(err, os.ErrClosed):
		return fmt.Errorf("%s: %w", at, err)
	default:
		return fmt.Errorf("%s: %w: %w", at, ErrCorrupt, err)
	}
}

type format int

const (
	formatUnknown format = iota
	formatPcap
	formatPcapNG
)

// captureFormat reads a file's magic number. The four of pcap are micro- and nanoseconds, in both byte
// orders; a pcapng section header reads the same in both.
func captureFormat(magic []byte) format {
	if len(magic) < 4 {
		return formatUnknown
	}
	switch binary.BigEndian.Uint32(magic) {
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
		return formatPcap
	case 0x0a0d0d0a:
		return formatPcapNG
	}
	return formatUnknown
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
