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

    private PemFile(string path, string text, FileStatus status)
    {
        Path = path;
        _text = text;
        Status = status;
    }

    internal string Path { get; }

    /// <summary>Of the file that was read.</summary>
    internal FileStatus Status { get; }

    /// <summary>Reads it.</summary>
    /// <param name="directory">Where it is.</param>
    /// <param name="name">Its name.</param>
    /// <param name="purpose">What it is for.</param>
    /// <param name="rights">Whose rights it is read with; null: this process's.</param>
    /// <param name="trust">Whose file it may be, besides that of the rights.</param>
    /// <exception cref="CbdException">It is missing, unreadable, too long, or a stranger's.</exception>
    internal static PemFile Read(string directory, string name, string purpose, PathRights? rights, OwnerTrust trust)
    {
        string path = System.IO.Path.Combine(directory, name);
        int error = PathRights.TryOpen(rights, path, Cbd.Memory.OpenFlags.ReadOnly | Cbd.Memory.OpenFlags.NonBlocking | Cbd.Memory.OpenFlags.NoTerminal, 0, out FileDescriptor? opened);
        using FileDescriptor? file = opened;
        if (error is -Errno.ENOENT or -Errno.ENOTDIR)
            throw new CbdException(CbdErrorKind.NotFound, $"TLS file '{path}' is missing: {purpose}; put it there, or name another directory with --tls-certificates");
        if (error is -Errno.EACCES or -Errno.EPERM or -Errno.ELOOP && rights is not null)
            throw new CbdException(CbdErrorKind.Denied, $"TLS file '{path}' may not be read by uid {rights.UserId}, who asks for it; {rights.Remedy}");
        if (error is -Errno.EACCES or -Errno.EPERM)
            throw new CbdException(CbdErrorKind.Denied, $"TLS file '{path}' may not be read by this daemon's user; give it that right");
        try
        {
            if (error != 0)
                throw new SystemCallException("open", -error);
            FileStatus status = file!.GetStatus();
            if (status.Type != FileType.Regular)
                throw new CbdException(CbdErrorKind.Invalid, $"TLS file '{path}' is no regular file; put the file itself there");
            if (status.SizeBytes > MaxBytes)
                throw new CbdException(CbdErrorKind.Invalid, $"TLS file '{path}' has {status.SizeBytes} bytes; at most {MaxBytes} are read");
            if (!trust.Trusts(status.OwnerId) && status.OwnerId != rights?.UserId)
                throw new CbdException(CbdErrorKind.Denied, $"TLS file '{path}' belongs to {OwnerTrust.Name(status.OwnerId)} (mode {OwnerTrust.Mode(status)}), who can replace it; chown it to root, or start cbdd with --trust-owner {status.OwnerId}");
            byte[] bytes = new byte[status.SizeBytes];
            int length = 0;
            while (length < bytes.Length && file.Read(bytes.AsSpan(length)) is > 0 and var count)
                length += count;
            // What is not ASCII stands outside of the parts, as comments.
            return new PemFile(path, Encoding.Latin1.GetString(bytes, 0, length), status);
        }
        catch (SystemCallException failure)
        {
            throw new CbdException(CbdErrorKind.Failed, $"TLS file '{path}' cannot be read: {failure.Message}", failure);
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
