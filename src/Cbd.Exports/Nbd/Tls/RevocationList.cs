using System.Collections.Immutable;
using System.Formats.Asn1;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Cbd.Memory;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// One certificate revocation list (RFC 5280, section 5): the numbers of the certificates that its issuer takes back.
/// .NET's chains take none from a file.
/// </summary>
internal sealed class RevocationList
{
    private readonly byte[] _issuer;
    private readonly ImmutableHashSet<string> _serialNumbers;
    private readonly byte[] _signed;
    private readonly byte[] _signature;
    private readonly string _algorithm;

    private RevocationList(ReadOnlyMemory<byte> bytes)
    {
        // CertificateList {tbsCertList, signatureAlgorithm, signature}; tbsCertList {version?, algorithm, issuer,
        // thisUpdate, nextUpdate?, revoked?, extensions?}.
        AsnReader list = new AsnReader(bytes, AsnEncodingRules.DER).ReadSequence();
        _signed = list.PeekEncodedValue().ToArray();
        AsnReader body = list.ReadSequence();
        if (body.PeekTag() == Asn1Tag.Integer)
            body.ReadInteger();
        body.ReadSequence();
        _issuer = body.ReadEncodedValue().ToArray();
        ReadTime(body);
        NextUpdate = body.HasData && IsTime(body.PeekTag()) ? ReadTime(body) : null;
        _serialNumbers = body.HasData && body.PeekTag() == Asn1Tag.Sequence ? ReadSerialNumbers(body.ReadSequence()) : [];
        _algorithm = list.ReadSequence().ReadObjectIdentifier();
        _signature = list.ReadBitString(out _);
    }

    /// <summary>When a newer one must be there; null: never.</summary>
    internal DateTimeOffset? NextUpdate { get; }

    internal bool IsOutdated(DateTimeOffset now) => NextUpdate is { } until && now > until;

    /// <summary>Reads all lists of a file. Each must be signed by one of <paramref name="authorities"/>.</summary>
    /// <exception cref="CbdException">What is wrong with the file.</exception>
    internal static List<RevocationList> ReadAll(PemFile file, X509Certificate2Collection authorities)
    {
        var lists = new List<RevocationList>();
        foreach (byte[] part in file.Parts("X509 CRL"))
        {
            try
            {
                var list = new RevocationList(part);
                if (!authorities.Any(list.IsSignedBy))
                    throw file.Invalid("is not signed by an authority in ca-cert.pem; take the list of that authority");
                lists.Add(list);
            }
            catch (Exception error) when (error is AsnContentException or CryptographicException)
            {
                throw file.Invalid($"has a revocation list that cannot be understood ({error.Message}); make it anew");
            }
        }

        return lists.Count != 0 ? lists : throw file.Invalid("has no revocation list in PEM (-----BEGIN X509 CRL-----); make one, or remove the file");
    }

    /// <summary>The issuer of <paramref name="certificate"/> is this list's.</summary>
    internal bool IsFor(X509Certificate2 certificate) => certificate.IssuerName.RawData.AsSpan().SequenceEqual(_issuer);

    /// <summary>The list has the certificate's number; only where <see cref="IsFor"/> holds.</summary>
    internal bool Has(X509Certificate2 certificate) => _serialNumbers.Contains(Convert.ToHexString(certificate.SerialNumberBytes.Span));

    private static ImmutableHashSet<string> ReadSerialNumbers(AsnReader entries)
    {
        ImmutableHashSet<string>.Builder numbers = ImmutableHashSet.CreateBuilder<string>();
        while (entries.HasData)
            numbers.Add(Convert.ToHexString(entries.ReadSequence().ReadIntegerBytes().Span));
        return numbers.ToImmutable();
    }

    private static bool IsTime(Asn1Tag tag) => tag == Asn1Tag.UtcTime || tag == Asn1Tag.GeneralizedTime;

    private static DateTimeOffset ReadTime(AsnReader reader) =>
        reader.PeekTag() == Asn1Tag.UtcTime ? reader.ReadUtcTime() : reader.ReadGeneralizedTime();

    private bool IsSignedBy(X509Certificate2 authority)
    {
        if (!authority.SubjectName.RawData.AsSpan().SequenceEqual(_issuer))
            return false;
        // The numbers of RFC 4055 (RSA, PKCS #1 v1.5) and RFC 5758 (ECDSA).
        using RSA? rsa = authority.GetRSAPublicKey();
        using ECDsa? ecdsa = authority.GetECDsaPublicKey();
        return _algorithm switch
        {
            "1.2.840.113549.1.1.11" => IsSignedBy(rsa, HashAlgorithmName.SHA256),
            "1.2.840.113549.1.1.12" => IsSignedBy(rsa, HashAlgorithmName.SHA384),
            "1.2.840.113549.1.1.13" => IsSignedBy(rsa, HashAlgorithmName.SHA512),
            "1.2.840.10045.4.3.2" => IsSignedBy(ecdsa, HashAlgorithmName.SHA256),
            "1.2.840.10045.4.3.3" => IsSignedBy(ecdsa, HashAlgorithmName.SHA384),
            "1.2.840.10045.4.3.4" => IsSignedBy(ecdsa, HashAlgorithmName.SHA512),
            _ => throw new CryptographicException($"signature algorithm {_algorithm}; use RSA (PKCS #1) or ECDSA with SHA-256, 384 or 512"),
        };
    }

    private bool IsSignedBy(RSA? key, HashAlgorithmName hash) => key is not null && key.VerifyData(_signed, _signature, hash, RSASignaturePadding.Pkcs1);

    private bool IsSignedBy(ECDsa? key, HashAlgorithmName hash) => key is not null && key.VerifyData(_signed, _signature, hash, DSASignatureFormat.Rfc3279DerSequence);
}
