package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// parts are what this program does in processes of their own: the baselines,
// so that they are measured like the others, and whatever takes memory. The
// kernel counts the memory of the process that starts another one as that
// one's until it is on its own, so a large starter would falsify the peaks.
var parts = map[string]func(args []string, stdout io.Writer) error{
	"walk":   walk,
	"unpack": unpack,
	"judge":  judge,
}

// blockSize is how much the baselines read at once.
const blockSize = 1 << 20

// walk reads a pcap file in blocks and touches the header of each record and
// the headers of the frame in it, and does nothing else: the floor for a
// program that reads captures.
func walk(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("walk: one capture, please")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	const fileHeader, recordHeader = 24, 16
	if _, err := f.Seek(fileHeader, io.SeekStart); err != nil {
		return err
	}
	var frames, sum uint64
	block, have := make([]byte, blockSize), 0
	for {
		n, err := f.Read(block[have:])
		have += n
		at := 0
		for have-at >= recordHeader {
			size := int(binary.LittleEndian.Uint32(block[at+8:]))
			if size > len(block)-recordHeader {
				return fmt.Errorf("walk: a frame of %d bytes", size)
			}
			if have-at < recordHeader+size {
				break
			}
			frame := block[at+recordHeader : at+recordHeader+size]
			if len(frame) >= 42 { // Ethernet, IPv4 and ports
				sum += uint64(binary.LittleEndian.Uint32(block[at:])) + uint64(frame[12]) + uint64(frame[23]) +
					binary.LittleEndian.Uint64(frame[26:]) + binary.LittleEndian.Uint64(frame[34:])
			}
			frames++
			at += recordHeader + size
		}
		have = copy(block, block[at:have])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if have > 0 {
		return errors.New("walk: the capture ends within a frame")
	}
	_, err = fmt.Fprintln(stdout, frames, sum)
	return err
}

// unpack decompresses a file with the libraries that oddcert uses, and does
// nothing else.
func unpack(args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New("unpack: one file, please")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, blockSize)
	head, err := in.Peek(2)
	if err != nil {
		return err
	}
	var r io.Reader
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		r, err = gzip.NewReader(in)
	} else {
		r, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		return err
	}
	var total int
	block := make([]byte, blockSize)
	for {
		n, err := r.Read(block)
		total += n
		if err == io.EOF {
			_, err = fmt.Fprintln(stdout, total)
			return err
		}
		if err != nil {
			return err
		}
	}
}
