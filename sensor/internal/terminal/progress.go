package terminal

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// bar shows how much of the input has been read. Its methods must not run at the
// same time.
type bar struct {
	bar  *progressbar.ProgressBar
	read func() (done, total int64)
}

func newBar(w io.Writer, read func() (done, total int64)) *bar {
	_, total := read()
	if total <= 0 {
		total = -1 // a spinner
	}
	return &bar{
		bar: progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(w),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetDescription("reading"),
			progressbar.OptionThrottle(0),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetPredictTime(true),
		),
		read: read,
	}
}

func (b *bar) draw() {
	done, _ := b.read()
	_ = b.bar.Set64(done)
}

func (b *bar) clear() { _ = b.bar.Clear() }
