using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Cbd.Exports.Nbd.Tls;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>What is read from a directory of certificates, and whom it lets in.</summary>
public sealed class TlsCredentialsTests : IDisposable
{
    private readonly TlsFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Good_files_need_no_note() => Assert.Equal("", TlsCredentials.Read(_files.Options(verifyPeer: true)).Note);

    [Fact]
    public void A_key_that_others_can_read_is_taken_with_a_note()
    {
        File.SetUnixFileMode(_files.InDirectory("server-key.pem"), UnixFileMode.UserRead | UnixFileMode.GroupRead);
        Assert.Contains("mode 440", TlsCredentials.Read(_files.Options()).Note, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_key_of_a_curve_is_taken_also_with_a_zero_in_front()
    {
        // As GnuTLS writes every second one: the private number is a byte longer than the curve.
        byte[] bytes;
        using (ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256))
        {
            byte[] right = key.ExportECPrivateKey();
            Assert.Equal([0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20], right[..7]);
            bytes = [0x30, 0x78, 0x02, 0x01, 0x01, 0x04, 0x21, 0x00, .. right[7..]];
            using ECDsa refused = ECDsa.Create();
            Assert.ThrowsAny<CryptographicException>(() => refused.ImportECPrivateKey(bytes, out _));
            using ECDsa read = ECDsa.Create();
            EcPrivateKey.Import(read, bytes);
            Assert.Equal(right, read.ExportECPrivateKey());
            EcPrivateKey.Import(read, right);
            Assert.Equal(right, read.ExportECPrivateKey());
        }
    }

    [Theory]
    [InlineData("server-cert.pem")]
    [InlineData("server-key.pem")]
    [InlineData("ca-cert.pem")]
    public void A_missing_file_is_named_with_the_remedy(string name)
    {
        File.Delete(_files.InDirectory(name));
        Refuses(CbdErrorKind.NotFound, $"'{_files.InDirectory(name)}' is missing", "--tls-certificates");
    }

    [Theory]
    [InlineData("server-cert.pem", "has no certificate in PEM")]
    [InlineData("server-key.pem", "has no private key in PEM")]
    [InlineData("ca-cert.pem", "has no certificate in PEM")]
    [InlineData("ca-crl.pem", "has no revocation list in PEM")]
    public void A_file_that_is_not_PEM_is_named(string name, string what)
    {
        File.WriteAllBytes(_files.InDirectory(name), [0x30, 0x82, 0xff, 0xfe]);
        Refuses(CbdErrorKind.Invalid, $"'{_files.InDirectory(name)}' {what}");
    }

    [Theory]
    [InlineData("server-cert.pem", "CERTIFICATE", "has a certificate that cannot be understood")]
    [InlineData("server-key.pem", "EC PRIVATE KEY", "has no private key that can be used")]
    [InlineData("server-key.pem", "PRIVATE KEY", "has no private key that can be used")]
    [InlineData("server-key.pem", "ENCRYPTED PRIVATE KEY", "is encrypted")]
    [InlineData("ca-crl.pem", "X509 CRL", "has a revocation list that cannot be understood")]
    public void PEM_that_holds_something_else_is_named(string name, string label, string what)
    {
        for (int length = 0; length < 40; length++)
        {
            byte[] bytes = new byte[length];
            new Random(length).NextBytes(bytes);
            File.WriteAllText(_files.InDirectory(name), new string(PemEncoding.Write(label, bytes)));
            Refuses(CbdErrorKind.Invalid, $"'{_files.InDirectory(name)}' {what}");
        }
    }

    [Fact]
    public void A_revocation_list_that_is_cut_or_changed_anywhere_is_refused()
    {
        _files.Revoke(5, _files.Sign("CN=alice"));
        string path = _files.InDirectory("ca-crl.pem");
        string text = File.ReadAllText(path);
        byte[] good = Convert.FromBase64String(text[PemEncoding.Find(text).Base64Data]);
        for (int i = 0; i < good.Length; i++)
        {
            byte[] changed = [.. good];
            changed[i] ^= 0x11;
            File.WriteAllText(path, new string(PemEncoding.Write("X509 CRL", changed)));
            Refuses(CbdErrorKind.Invalid, path);
            File.WriteAllText(path, new string(PemEncoding.Write("X509 CRL", good.AsSpan(0, i))));
            Refuses(CbdErrorKind.Invalid, path);
        }
    }

    [Fact]
    public void Expired_and_future_certificates_are_named_with_the_time()
    {
        using (X509Certificate2 expired = _files.Sign("CN=server", -5, -2))
            _files.Write(expired, "server-cert.pem", "server-key.pem");
        Refuses(CbdErrorKind.Invalid, "server-cert.pem' has expired: 'CN=server' was valid until", "renew");
        using (X509Certificate2 future = _files.Sign("CN=server", 2, 5))
            _files.Write(future, "server-cert.pem", "server-key.pem");
        Refuses(CbdErrorKind.Invalid, "server-cert.pem' is not valid yet");
    }

    [Fact]
    public void A_key_of_another_certificate_is_named_with_both_files()
    {
        using X509Certificate2 other = _files.Sign("CN=other");
        _files.Write(other, "other-cert.pem", "server-key.pem");
        Refuses(CbdErrorKind.Invalid, "server-key.pem' is not the key of", "server-cert.pem' (CN=server)");
    }

    [Fact]
    public void An_outdated_revocation_list_is_refused()
    {
        _files.Revoke(-1);
        Refuses(CbdErrorKind.Invalid, "ca-crl.pem' should have been replaced by");
    }

    [Fact]
    public void A_client_is_let_in_by_the_authority_its_time_and_its_names()
    {
        using X509Certificate2 alice = _files.Sign("O=example, CN=alice");
        using X509Certificate2 named = _files.Sign("O=example", dnsName: "backup.example");
        using X509Certificate2 expired = _files.Sign("CN=alice", -5, -2);
        using var strangers = new TlsFiles();
        using X509Certificate2 stranger = strangers.Sign("CN=alice");
        Assert.Null(FindFault(alice));
        Assert.Null(FindFault(alice, "bob", "alice"));
        Assert.Null(FindFault(named, "backup.example"));
        Assert.Contains("presented no certificate", FindFault(null), StringComparison.Ordinal);
        Assert.Contains("has no name that is allowed (it has alice)", FindFault(alice, "Alice", "alic", "example"), StringComparison.Ordinal);
        Assert.Contains("(it has backup.example)", FindFault(named, "alice"), StringComparison.Ordinal);
        Assert.Contains("and not now", FindFault(expired, "alice"), StringComparison.Ordinal);
        Assert.Contains("is not signed by an authority in ca-cert.pem", FindFault(stranger, "alice"), StringComparison.Ordinal);
    }

    [Fact]
    public void A_revoked_client_is_refused_and_others_of_the_authority_are_not()
    {
        using X509Certificate2 alice = _files.Sign("CN=alice");
        using X509Certificate2 bob = _files.Sign("CN=bob");
        _files.Revoke(5, bob);
        Assert.Null(FindFault(alice));
        Assert.Contains("was revoked (ca-crl.pem: CN=bob, serial number 01", FindFault(bob), StringComparison.Ordinal);
    }

    [Fact]
    public void Names_of_clients_cannot_forge_lines_of_the_log()
    {
        using X509Certificate2 client = _files.Sign("CN=\"eve\nclient 1 was connected\"");
        string fault = FindFault(client, "alice")!;
        Assert.DoesNotContain('\n', fault);
    }

    private string? FindFault(X509Certificate2? certificate, params string[] allow)
    {
        TlsCredentials credentials = TlsCredentials.Read(_files.Options(verifyPeer: true, allow));
        if (certificate is null)
            return ClientCertificate.FindFault(null, null, SslPolicyErrors.RemoteCertificateNotAvailable, credentials, allow);
        using var chain = new X509Chain { ChainPolicy = ClientCertificate.ChainPolicy(credentials) };
        bool valid = chain.Build(certificate);
        return ClientCertificate.FindFault(
            certificate, chain, valid ? SslPolicyErrors.None : SslPolicyErrors.RemoteCertificateChainErrors, credentials, allow);
    }

    private void Refuses(CbdErrorKind kind, params string[] parts)
    {
        var error = Assert.Throws<CbdException>(() => TlsCredentials.Read(_files.Options(verifyPeer: true)));
        Assert.Equal(kind, error.Kind);
        Assert.All(parts, part => Assert.Contains(part, error.Message, StringComparison.Ordinal));
    }
}
