using System.Formats.Asn1;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Cbd.Memory;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>One file of a directory of certificates: its text, and its parts in PEM (RFC 7468).</summary>
internal sealed class PemFile
{
    /// <summary>Longest file that is read; a bundle of all public authorities has a tenth of it.</summary>
    private const int MaxBytes = 4 << 20;

    private readonly string _text;

    private PemFile(string path, string text)
    {
        Path = path;
        _text = text;
    }

    internal string Path { get; }

    /// <exception cref="CbdException">It is missing, unreadable or too long. <paramref name="purpose"/>: what it is for.</exception>
    internal static PemFile Read(string directory, string name, string purpose)
    {
        string path = System.IO.Path.Combine(directory, name);
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            if (file.Length > MaxBytes)
                throw new CbdException(CbdErrorKind.Invalid, $"TLS file '{path}' has {file.Length} bytes; at most {MaxBytes} are read");
            byte[] bytes = new byte[file.Length];
            file.ReadExactly(bytes);
            // What is not ASCII stands outside of the parts, as comments.
            return new PemFile(path, Encoding.Latin1.GetString(bytes));
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new CbdException(CbdErrorKind.NotFound, $"TLS file '{path}' is missing: {purpose}; put it there, or name another directory with --tls-certificates", error);
        }
        catch (UnauthorizedAccessException error)
        {
            throw new CbdException(CbdErrorKind.Denied, $"TLS file '{path}' may not be read by this daemon's user; give it that right", error);
        }
        catch (Exception error) when (error is IOException or NotSupportedException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"TLS file '{path}' cannot be read: {error.Message}", error);
        }
    }

    /// <summary>The bytes of all parts with this label, in order.</summary>
    internal List<byte[]> Parts(string label)
    {
        var parts = new List<byte[]>();
        ReadOnlySpan<char> rest = _text;
        while (PemEncoding.TryFind(rest, out PemFields fields))
        {
            if (rest[fields.Label].SequenceEqual(label))
                parts.Add(Convert.FromBase64String(rest[fields.Base64Data].ToString()));
            rest = rest[fields.Location.End..];
        }

        return parts;
    }

    /// <summary>All certificates, at least one.</summary>
    internal X509Certificate2Collection Certificates()
    {
        var certificates = new X509Certificate2Collection();
        try
        {
            foreach (byte[] part in Parts("CERTIFICATE"))
                certificates.Add(X509CertificateLoader.LoadCertificate(part));
        }
        catch (CryptographicException error)
        {
            throw Invalid($"has a certificate that cannot be understood ({error.Message}); make it anew");
        }

        return certificates.Count != 0 ? certificates : throw Invalid("has no certificate in PEM (-----BEGIN CERTIFICATE-----); convert it with 'openssl x509 -outform pem'");
    }

    /// <summary>The private key, RSA or ECDSA.</summary>
    internal AsymmetricAlgorithm PrivateKey()
    {
        if (Parts("ENCRYPTED PRIVATE KEY").Count != 0 || _text.Contains("Proc-Type: 4,ENCRYPTED", StringComparison.Ordinal))
            throw Invalid("is encrypted, and nobody is there to type its password; decrypt it with 'openssl pkey', mode 0600");
        if (!_text.Contains("PRIVATE KEY-----", StringComparison.Ordinal))
            throw Invalid("has no private key in PEM (-----BEGIN PRIVATE KEY-----); convert it with 'openssl pkey'");
        return Import(RSA.Create()) ?? Import(ECDsa.Create()) ?? throw Invalid("has no private key that can be used; make one of kind RSA or ECDSA");
    }

    internal CbdException Invalid(string what) => new(CbdErrorKind.Invalid, $"TLS file '{Path}' {what}");

    private AsymmetricAlgorithm? Import(AsymmetricAlgorithm key)
    {
        try
        {
            if (key is ECDsa curve && Parts("EC PRIVATE KEY") is [{ } part, ..])
                EcPrivateKey.Import(curve, part);
            else
                key.ImportFromPem(_text);
            return key;
        }
        catch (Exception error) when (error is CryptographicException or AsnContentException or ArgumentException)
        {
            key.Dispose();
            return null;
        }
    }
}
