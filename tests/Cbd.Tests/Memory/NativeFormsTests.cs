using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class NativeFormsTests
{
    private const int Room = 4200 + 64;

    public static TheoryData<int> CrcForms() => [.. Available(NativeForms.CopiesWithCrc)];

    [Fact]
    public void Fallback_is_always_there_and_a_form_that_is_missing_is_refused()
    {
        Assert.True(NativeForms.Lines[0].Available);
        Assert.True(NativeForms.CopiesWithCrc[0].Available);
        Assert.Throws<ArgumentException>(() => NativeForms.CopyWithCrc(new NativeForm(99, "none", true), [], [], 0));
        Assert.Contains(NativeForms.CopiesWithCrc.Last(f => f.Available).Name, NativeForms.Summary, StringComparison.Ordinal);
    }

    [Fact]
    public void Table_form_knows_the_standard_check_value() =>
        Assert.Equal(0xE3069283u, ~NativeForms.CopyWithCrc(NativeForms.CopiesWithCrc[0], "123456789"u8, new byte[9], uint.MaxValue));

    [Theory]
    [MemberData(nameof(CrcForms))]
    public void Every_length_is_copied_whole_with_the_crc_of_the_reference(int form)
    {
        byte[] source = RandomBytes(1, Room), destination = new byte[Room];
        var random = new Random(form);
        for (int length = 0; length <= 4200; length++)
        {
            int from = random.Next(64), to = random.Next(64);
            uint seed = (uint)random.NextInt64(1L << 32);
            Array.Fill(destination, (byte)0xa5);
            uint crc = NativeForms.CopyWithCrc(NativeForms.CopiesWithCrc[form], source.AsSpan(from, length), destination.AsSpan(to), seed);
            Assert.Equal(Crc32C.Append(seed, source.AsSpan(from, length)), crc);
            Assert.True(source.AsSpan(from, length).SequenceEqual(destination.AsSpan(to, length)));
            Assert.Equal(-1, destination.AsSpan(0, to).IndexOfAnyExcept((byte)0xa5));
            Assert.Equal(-1, destination.AsSpan(to + length).IndexOfAnyExcept((byte)0xa5));
        }
    }

    [Theory]
    [MemberData(nameof(CrcForms))]
    public void Random_content_and_seed_give_the_crc_of_the_reference(int form) =>
        Gen.Select(Gen.Byte.Array[0, 9000], Gen.UInt, Gen.Int[0, 63]).Sample((source, seed, to) =>
        {
            byte[] destination = new byte[source.Length + 64];
            uint crc = NativeForms.CopyWithCrc(NativeForms.CopiesWithCrc[form], source, destination.AsSpan(to), seed);
            return crc == Crc32C.Append(seed, source) && destination.AsSpan(to, source.Length).SequenceEqual(source);
        }, iter: 500, threads: 1);

    [Theory]
    [MemberData(nameof(CrcForms))]
    public void A_register_continued_over_parts_is_that_of_the_whole(int form)
    {
        byte[] source = RandomBytes(2, 8192), destination = new byte[8192];
        NativeForm f = NativeForms.CopiesWithCrc[form];
        uint whole = NativeForms.CopyWithCrc(f, source, destination, 7);
        foreach (int cut in new[] { 1, 63, 64, 65, 255, 256, 4096, 8191 })
        {
            uint part = NativeForms.CopyWithCrc(f, source.AsSpan(0, cut), destination, 7);
            Assert.Equal(whole, NativeForms.CopyWithCrc(f, source.AsSpan(cut), destination, part));
        }
    }

    [Fact]
    public void A_line_stored_by_any_form_is_loaded_by_any_other()
    {
        var line = new Line { Word0 = 0x0102030405060708, Word1 = 2, Word2 = 3, Word3 = 4, Word4 = 5, Word5 = 6, Word6 = 7, Word7 = ulong.MaxValue };
        foreach (int store in Available(NativeForms.Lines))
        {
            foreach (int load in Available(NativeForms.Lines))
                Assert.Equal(line, NativeForms.StoreAndLoadLine(NativeForms.Lines[store], NativeForms.Lines[load], line));
        }
    }

    private static IEnumerable<int> Available(IReadOnlyList<NativeForm> forms) => forms.Where(f => f.Available).Select(f => f.Index);

    private static byte[] RandomBytes(int seed, int count)
    {
        byte[] bytes = new byte[count];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
