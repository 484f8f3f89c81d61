using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// What one reading of a directory of certificates gave: this server's certificate with its key, and what clients'
/// certificates are checked against. Immutable.
/// </summary>
internal sealed class TlsCredentials
{
    internal const string ServerCertificateName = "server-cert.pem";
    internal const string ServerKeyName = "server-key.pem";
    internal const string AuthoritiesName = "ca-cert.pem";
    internal const string RevocationsName = "ca-crl.pem";

    private TlsCredentials(SslStreamCertificateContext server, X509Certificate2Collection authorities, IReadOnlyList<RevocationList> revocations, string note)
    {
        Server = server;
        Authorities = authorities;
        Revocations = revocations;
        Note = note;
    }

    internal SslStreamCertificateContext Server { get; }

    /// <summary>Who may sign a client's certificate; empty where clients need none.</summary>
    internal X509Certificate2Collection Authorities { get; }

    internal IReadOnlyList<RevocationList> Revocations { get; }

    /// <summary>What an operator should change, in one line; empty if there is nothing.</summary>
    internal string Note { get; }

    /// <summary>Reads and checks the files.</summary>
    /// <exception cref="CbdException">Which file is wrong, how, and what to do.</exception>
    internal static TlsCredentials Read(TlsOptions options, PathRights? rights = null, OwnerTrust? trust = null)
    {
        trust ??= OwnerTrust.Default;
        // A user's own directory is that user's business.
        if (rights is null)
            trust.CheckDirectory(options.Certificates, "directory of certificates", "name another one with --tls-certificates");
        PemFile certificateFile = PemFile.Read(options.Certificates, ServerCertificateName, "it is this server's certificate", rights, trust);
        X509Certificate2Collection chain = certificateFile.Certificates();
        PemFile keyFile = PemFile.Read(options.Certificates, ServerKeyName, "it is the private key of this server's certificate", rights, trust);
        using AsymmetricAlgorithm key = keyFile.PrivateKey();
        X509Certificate2 certificate = chain[0];
        CheckTime(certificateFile, certificate);
        X509Certificate2 server = Join(certificate, key)
            ?? throw keyFile.Invalid($"is not the key of '{certificateFile.Path}' ({certificate.Subject}); put the pair there that belongs together");
        chain.RemoveAt(0);

        X509Certificate2Collection authorities = [];
        List<RevocationList> revocations = [];
        if (options.VerifyPeer)
        {
            PemFile authoritiesFile = PemFile.Read(options.Certificates, AuthoritiesName, "clients' certificates must be signed by what is in it", rights, trust);
            authorities = authoritiesFile.Certificates();
            foreach (X509Certificate2 authority in authorities)
                CheckTime(authoritiesFile, authority);
            if (PathRights.TryGetStatus(rights, Path.Combine(options.Certificates, RevocationsName), out _) != -Errno.ENOENT)
            {
                PemFile revocationsFile = PemFile.Read(options.Certificates, RevocationsName, "", rights, trust);
                revocations = RevocationList.ReadAll(revocationsFile, authorities);
                if (revocations.Find(static list => list.IsOutdated(DateTimeOffset.UtcNow)) is { } outdated)
                    throw revocationsFile.Invalid($"should have been replaced by {outdated.NextUpdate:u}; put a newer list there");
            }
        }

        return new TlsCredentials(
            SslStreamCertificateContext.Create(server, chain, offline: true), authorities, revocations, DescribeRights(keyFile, trust));
    }

    private static void CheckTime(PemFile file, X509Certificate2 certificate)
    {
        DateTime now = DateTime.Now;
        if (now > certificate.NotAfter)
            throw file.Invalid($"has expired: '{certificate.Subject}' was valid until {certificate.NotAfter.ToUniversalTime():u}; renew it");
        if (now < certificate.NotBefore)
            throw file.Invalid($"is not valid yet: '{certificate.Subject}' is from {certificate.NotBefore.ToUniversalTime():u} on; check the clock, or wait");
    }

    /// <summary>The certificate with its key; null if they do not belong together.</summary>
    private static X509Certificate2? Join(X509Certificate2 certificate, AsymmetricAlgorithm key)
    {
        if (!certificate.PublicKey.ExportSubjectPublicKeyInfo().AsSpan().SequenceEqual(key.ExportSubjectPublicKeyInfo()))
            return null;
        return key switch
        {
            RSA rsa => certificate.CopyWithPrivateKey(rsa),
            ECDsa ecdsa => certificate.CopyWithPrivateKey(ecdsa),
            _ => throw new InvalidOperationException($"a key is a {key.GetType().Name}"),
        };
    }

    /// <summary>Refuses a key that everybody can read or write; what to say of one that a group can.</summary>
    private static string DescribeRights(PemFile key, OwnerTrust trust)
    {
        const uint everybody = 6, group = 0x30;
        FileStatus status = key.Status;
        if ((status.Permissions & everybody) != 0 && !trust.IsNamed(status.OwnerId))
        {
            throw new CbdException(CbdErrorKind.Denied,
                $"TLS file '{key.Path}' can be read or written by everybody (owner {OwnerTrust.Name(status.OwnerId)}, mode {OwnerTrust.Mode(status)}); whoever reads it can pose as this server: make a new key, chmod 600 it, or start cbdd with --trust-owner {status.OwnerId}");
        }

        return (status.Permissions & (everybody | group)) == 0
            ? ""
            : $"TLS file '{key.Path}' can be read or written by others than its owner (mode {Convert.ToString(status.Permissions, 8)}); whoever reads it can pose as this server: chmod 600 it";
    }
}
