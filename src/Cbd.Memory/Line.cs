using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>A private copy of one 64-byte cache line, as eight little-endian words.</summary>
[StructLayout(LayoutKind.Sequential, Size = SizeBytes)]
public struct Line : IEquatable<Line>
{
    /// <summary>Bytes of a line.</summary>
    public const int SizeBytes = 64;

    public ulong Word0;
    public ulong Word1;
    public ulong Word2;
    public ulong Word3;
    public ulong Word4;
    public ulong Word5;
    public ulong Word6;
    public ulong Word7;

    public readonly bool Equals(Line other) =>
        Word0 == other.Word0 && Word1 == other.Word1 && Word2 == other.Word2 && Word3 == other.Word3 &&
        Word4 == other.Word4 && Word5 == other.Word5 && Word6 == other.Word6 && Word7 == other.Word7;

    public override readonly bool Equals(object? obj) => obj is Line other && Equals(other);

    public override readonly int GetHashCode() =>
        HashCode.Combine(Word0, Word1, Word2, Word3, Word4, Word5, Word6, Word7);

    public static bool operator ==(Line left, Line right) => left.Equals(right);

    public static bool operator !=(Line left, Line right) => !left.Equals(right);
}
