package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress is a bar that shows how much of the input was read.
type progress struct {
	bar  *progressbar.ProgressBar
	read func() (read, total int64)
	quit chan struct{}
	done chan struct{}
}

// progressInterval is the time between two looks at what was read.
const progressInterval = 200 * time.Millisecond

func newProgress(w io.Writer, read func() (read, total int64)) *progress {
	_, total := read()
	if total <= 0 {
		total = -1 // a spinner
	}
	return &progress{
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
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
}

// run draws the bar from time to time until stop; locked runs what draws while
// nothing else writes.
func (p *progress) run(locked func(func())) {
	go func() {
		defer close(p.done)
		t := time.NewTicker(progressInterval)
		defer t.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-t.C:
				locked(p.draw)
			}
		}
	}()
}

func (p *progress) stop() {
	close(p.quit)
	<-p.done
}

// draw and clear must not run at the same time.
func (p *progress) draw() {
	read, _ := p.read()
	_ = p.bar.Set64(read)
}

func (p *progress) clear() { _ = p.bar.Clear() }
