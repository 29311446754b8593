package temporal

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"go.temporal.io/server/common/log"
)

// maxLogBytes bounds temporal.log; when it is full it becomes temporal.log.old,
// in place of an earlier one.
const maxLogBytes = 16 << 20

// newLogger returns the server's logger: JSON lines from warnings up, without
// the stack traces that the server's own configuration adds to every error.
func newLogger(f *logFile) log.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	return log.NewZapLogger(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(encoding), f, zapcore.WarnLevel)))
}

// logFile is a file that is set aside when it has reached limit bytes. Closed,
// it takes and drops what the server's last goroutines say.
type logFile struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string, limit int64) (*logFile, error) {
	f := &logFile{path: path, limit: limit}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

func (f *logFile) open() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Write appends p, which is one entry.
func (f *logFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return len(p), nil
	}
	if f.size > 0 && f.size+int64(len(p)) > f.limit {
		if err := errors.Join(f.file.Close(), os.Rename(f.path, f.path+".old"), f.open()); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(p)
	f.size += int64(n)
	return n, err
}

// Sync does nothing: a log need not survive more than the process.
func (f *logFile) Sync() error { return nil }

// Close closes the file.
func (f *logFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}
