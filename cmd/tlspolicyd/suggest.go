package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
	"tlspolicyd/internal/printable"
)

func newSuggest(o *options) *cobra.Command {
	var (
		asJSON  bool
		keyFile string
		c       checking
	)
	cmd := &cobra.Command{
		Use:   "suggest DOMAIN",
		Short: "Print what a mail domain should publish next",
		Long: `suggest audits a mail domain of yours as check does, and prints what to publish
next, in order: the TLSRPT record, the policy file (mode testing first; enforce
when nothing is in its way), the web server block for nginx, Caddy and Apache,
the MTA-STS record with a fresh id, TLSA records for the present and the next
key where the zone is signed, and how to take it all away again. A policy in
mode enforce is never weakened. It changes nothing, and needs no running daemon.

Publish what it prints, then run check, and suggest again for the next step.

With --json the output is one JSON object; its fields are listed in
` + docs + `/suggest.md.

Exit status: 0 printed, 1 the domain has no mail host, 2 wrong usage, 3 too
little is known of the domain.`,
		Example: `  tlspolicyd suggest example.com
  tlspolicyd suggest example.com --next-key next-key.pub.pem
  tlspolicyd suggest --json example.com |
    jq -r '.steps[] | select(.name == "policy-file").lines'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which DOMAIN? One at a time")
			}
			domains, err := checkDomains(args, strings.NewReader(""))
			if err != nil {
				return err
			}
			var nextKey []byte
			if keyFile != "" {
				if nextKey, err = readPublicKey(keyFile); err != nil {
					return usageError("--next-key: %w", err)
				}
			}
			cfg, err := o.load()
			if err != nil {
				return err
			}
			c.timeout = check.DefaultTimeout
			opts, err := checkOptions(cfg, o, c)
			if err != nil {
				return err
			}
			f := check.New(opts).Gather(cmd.Context(), domains[0])
			if why := f.Unsuggestible(); len(why) > 0 {
				topics := []audit.Topic{{Name: "nothing can be suggested", Findings: why}}
				if err := output.TextFor(cmd.ErrOrStderr()).Write(cmd.ErrOrStderr(), topics); err != nil {
					return outputError(err)
				}
				if audit.Worst(topics) == audit.Unknown {
					return &exitError{status: exitUnknown}
				}
				return &exitError{status: exitNo}
			}
			s := check.Suggest(f, nextKey)
			if asJSON {
				return outputError(writeJSON(printable.JSON(cmd.OutOrStdout()), s))
			}
			return outputError(writeSuggestion(cmd.OutOrStdout(), s))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&keyFile, "next-key", "", "PEM `FILE` with the public key, or a certificate, that the mail hosts will change to")
	return cmd
}

// readPublicKey reads the SubjectPublicKeyInfo of a key or a certificate.
func readPublicKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	switch {
	case block != nil && block.Type == "PUBLIC KEY":
		_, err = x509.ParsePKIXPublicKey(block.Bytes)
		return block.Bytes, err
	case block != nil && block.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.RawSubjectPublicKeyInfo, nil
	}
	return nil, fmt.Errorf("%s: want a PEM file with a public key or a certificate: 'openssl pkey -in KEY -pubout' prints that of a private key", path)
}

func writeSuggestion(w io.Writer, s check.Suggestion) error {
	const indent = "        "
	var b strings.Builder
	text := output.TextFor(w)
	fmt.Fprintf(&b, "== %s: mode %s\n\n", s.Domain, s.Mode)
	if err := text.Write(&b, []audit.Topic{{Name: "in the way of mode enforce", Findings: s.InTheWay}}); err != nil {
		return err
	}
	for i, step := range s.Steps {
		fmt.Fprintf(&b, "%d. %s%s\n", i+1, step.Name, map[bool]string{true: " (now)"}[step.Needed])
		text.Wrap(&b, indent, step.Text)
		for line := range strings.Lines(step.Lines) {
			b.WriteString(indent + "  " + line)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
