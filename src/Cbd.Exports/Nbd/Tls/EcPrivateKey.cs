using System.Formats.Asn1;
using System.Security.Cryptography;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// A key in the form "EC PRIVATE KEY" (RFC 5915). GnuTLS before 3.8 writes a zero in front of every second private number,
/// which other programs overlook and .NET refuses.
/// </summary>
internal static class EcPrivateKey
{
    private static readonly Asn1Tag s_publicKey = new(TagClass.ContextSpecific, 1);

    /// <exception cref="CryptographicException">It is no such key.</exception>
    /// <exception cref="AsnContentException">It is no such key.</exception>
    internal static void Import(ECDsa key, byte[] bytes)
    {
        // ECPrivateKey {version, privateKey, [0] parameters?, [1] publicKey?}.
        AsnReader source = new AsnReader(bytes, AsnEncodingRules.BER).ReadSequence();
        ReadOnlyMemory<byte> version = source.ReadEncodedValue();
        byte[] number = source.ReadOctetString();
        var rest = new List<ReadOnlyMemory<byte>>();
        int publicBytes = 0;
        while (source.HasData)
        {
            bool isPublicKey = source.PeekTag().HasSameClassAndValue(s_publicKey);
            ReadOnlyMemory<byte> part = source.ReadEncodedValue();
            rest.Add(part);
            // A point is a byte and two coordinates, which are as long as the private number must be.
            if (isPublicKey)
                publicBytes = new AsnReader(part, AsnEncodingRules.BER).ReadSequence(s_publicKey).ReadBitString(out _).Length;
        }

        ReadOnlySpan<byte> shorter = number.Length == ((publicBytes - 1) / 2) + 1 && number[0] == 0 ? number.AsSpan(1) : number;
        var writer = new AsnWriter(AsnEncodingRules.DER);
        using (writer.PushSequence())
        {
            writer.WriteEncodedValue(version.Span);
            writer.WriteOctetString(shorter);
            foreach (ReadOnlyMemory<byte> part in rest)
                writer.WriteEncodedValue(part.Span);
        }

        key.ImportECPrivateKey(writer.Encode(), out _);
    }
}
