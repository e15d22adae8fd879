package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

const validity = 10 * 24 * time.Hour

// certificates writes what an API server and a kubelet show each other: ca.crt, and a certificate and key of each of
// tls (of the API server), kubelet and kubelet-client (of the API server when it calls a kubelet).
//
// hosts and node are names and addresses with commas between them.
func certificates(folder, hosts, node string) error {
	authorityKey, err := newKey()
	if err != nil {
		return err
	}
	authority, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "test-node"}, authorityKey)
	if err != nil {
		return err
	}
	if err := write(folder, "ca.crt", certificatePEM(authority)); err != nil {
		return err
	}
	for name, subject := range map[string]x509.Certificate{
		"tls":     named(hosts, x509.ExtKeyUsageServerAuth),
		"kubelet": named(node, x509.ExtKeyUsageServerAuth),
		"kubelet-client": {
			Subject:     pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		},
	} {
		if err := signed(folder, name, subject, authority, authorityKey); err != nil {
			return err
		}
	}
	return nil
}

// named is a certificate for names and addresses.
func named(hosts string, usage x509.ExtKeyUsage) x509.Certificate {
	found := x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	for _, host := range strings.Split(hosts, ",") {
		if address := net.ParseIP(host); address != nil {
			found.IPAddresses = append(found.IPAddresses, address)
		} else {
			found.DNSNames = append(found.DNSNames, host)
		}
	}
	found.Subject.CommonName = strings.Split(hosts, ",")[0]
	return found
}

func signed(folder, name string, subject x509.Certificate, authority *x509.Certificate, by crypto.Signer) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	if subject.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(math.MaxInt64)); err != nil {
		return err
	}
	subject.NotBefore = time.Now().Add(-time.Minute)
	subject.NotAfter = time.Now().Add(validity)
	subject.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	made, err := x509.CreateCertificate(rand.Reader, &subject, authority, key.Public(), by)
	if err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(made)
	if err != nil {
		return err
	}
	if err := write(folder, name+".crt", certificatePEM(parsed)); err != nil {
		return err
	}
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	return write(folder, name+".key", encoded)
}

func newKey() (crypto.Signer, error) {
	encoded, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return nil, err
	}
	key, err := keyutil.ParsePrivateKeyPEM(encoded)
	if err != nil {
		return nil, err
	}
	return key.(crypto.Signer), nil
}

func write(folder, name string, content []byte) error {
	return os.WriteFile(filepath.Join(folder, name), content, 0o600)
}

func certificatePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: certificate.Raw})
}
