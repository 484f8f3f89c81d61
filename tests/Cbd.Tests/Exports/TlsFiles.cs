using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Cbd.Host;

namespace Cbd.Tests.Exports;

/// <summary>A directory of certificates, made in the process: an authority, the server's pair, and clients' on demand.</summary>
internal sealed class TlsFiles : IDisposable
{
    private readonly X509Certificate2 _authority;
    private int _serial;

    internal TlsFiles()
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=authority", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        _authority = request.CreateSelfSigned(Now.AddDays(-10), Now.AddDays(10));
        using X509Certificate2 server = Sign("CN=server");
        Write(server, "server-cert.pem", "server-key.pem");
        File.WriteAllText(InDirectory("ca-cert.pem"), _authority.ExportCertificatePem());
    }

    internal string Directory { get; } = System.IO.Directory.CreateTempSubdirectory("cbd-tls-").FullName;

    internal X509Certificate2 Authority => _authority;

    private static DateTimeOffset Now => DateTimeOffset.UtcNow;

    internal TlsOptions Options(bool verifyPeer = false, params string[] allow) =>
        new() { Certificates = Directory, VerifyPeer = verifyPeer, Allow = allow };

    internal string InDirectory(string name) => Path.Combine(Directory, name);

    internal X509Certificate2 Sign(string subject, int fromDay = -1, int toDay = 5, string? dnsName = null)
    {
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(subject, key, HashAlgorithmName.SHA256);
        if (dnsName is not null)
        {
            var names = new SubjectAlternativeNameBuilder();
            names.AddDnsName(dnsName);
            request.CertificateExtensions.Add(names.Build());
        }

        byte[] serial = [1, (byte)++_serial];
        using X509Certificate2 certificate = request.Create(_authority, Now.AddDays(fromDay), Now.AddDays(toDay), serial);
        using X509Certificate2 withKey = certificate.CopyWithPrivateKey(key);
        // Not only in memory: what a TLS client presents must be exportable there.
        return X509CertificateLoader.LoadPkcs12(withKey.Export(X509ContentType.Pkcs12), null);
    }

    internal void Write(X509Certificate2 certificate, string certificateName, string keyName)
    {
        File.WriteAllText(InDirectory(certificateName), certificate.ExportCertificatePem());
        using ECDsa key = certificate.GetECDsaPrivateKey()!;
        File.WriteAllText(InDirectory(keyName), key.ExportECPrivateKeyPem());
        File.SetUnixFileMode(InDirectory(keyName), UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    internal void Revoke(int nextUpdateDay, params X509Certificate2[] certificates)
    {
        var list = new CertificateRevocationListBuilder();
        foreach (X509Certificate2 certificate in certificates)
            list.AddEntry(certificate);
        byte[] bytes = list.Build(_authority, 1, Now.AddDays(nextUpdateDay), HashAlgorithmName.SHA256, thisUpdate: Now.AddDays(-5));
        File.WriteAllText(InDirectory("ca-crl.pem"), new string(PemEncoding.Write("X509 CRL", bytes)));
    }

    public void Dispose()
    {
        _authority.Dispose();
        System.IO.Directory.Delete(Directory, recursive: true);
    }
}
