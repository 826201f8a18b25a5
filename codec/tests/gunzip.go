// Decompresses standard input to standard output, and fails unless it is one gzip member or one zlib stream from its
// first byte to its last. Usage: go run gunzip.go gzip|zlib
package main

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"os"
)

func main() {
	input := bufio.NewReader(os.Stdin)
	reader, err := open(os.Args[1], input)
	if err == nil {
		_, err = io.Copy(os.Stdout, reader)
	}
	if err == nil {
		if _, more := input.ReadByte(); more != io.EOF {
			err = fmt.Errorf("bytes follow the end of the first stream")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func open(format string, input *bufio.Reader) (io.Reader, error) {
	if format == "zlib" {
		return zlib.NewReader(input)
	}
	reader, err := gzip.NewReader(input)
	if err == nil {
		reader.Multistream(false)
	}
	return reader, err
}
