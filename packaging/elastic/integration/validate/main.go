// Command validate holds an integration package against Elastic's specification of
// packages, with Elastic's own validator. It prints what is wrong, and nothing for a
// package that is right.
//
//	go run . oddcert-1.2.3.zip
package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/elastic/package-spec/v3/code/go/pkg/specerrors"
	"github.com/elastic/package-spec/v3/code/go/pkg/validator"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: validate PACKAGE.zip")
		os.Exit(2)
	}
	if err := validate(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// validate returns what is wrong with a package, but for the checks that its
// validation.yml excludes. A check that is excluded and would not fail is wrong too.
func validate(path string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	files, err := fs.Glob(z, "*/validation.yml")
	if err != nil {
		return err
	}
	var errs specerrors.ValidationErrors
	err = validator.ValidateFromZip(path)
	if err != nil && !errors.As(err, &errs) {
		return err
	}
	if len(files) != 1 {
		return err
	}
	folder, err := fs.Sub(z, files[0][:len(files[0])-len("/validation.yml")])
	if err != nil {
		return err
	}
	config, err := specerrors.LoadConfigFilter(folder)
	if err != nil {
		return err
	}
	result, err := specerrors.NewFilter(config).Run(errs)
	if err != nil {
		return err
	}
	for _, unused := range result.UnusedProcessors {
		result.Processed = errors.Join(result.Processed, fmt.Errorf("validation.yml excludes %s, which would not fail", unused.Name()))
	}
	return result.Processed
}
